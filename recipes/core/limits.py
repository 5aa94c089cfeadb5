"""Limits for files of unknown origin."""

MAX_PIXELS = 100_000_000  # pixels of all frames together: three times those of a usual camera, or 300 MB decoded
MAX_BYTES = 2**30
