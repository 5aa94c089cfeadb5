"""Limits for files of unknown origin."""

MAX_PIXELS = 100_000_000  # of all frames together: three times the pixels of a camera, 300 MB decoded
MAX_BYTES = 2**30
