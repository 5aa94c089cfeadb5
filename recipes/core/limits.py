"""Limits of what is read from files of unknown origin."""

MAX_PIXELS = 100_000_000  # all frames together: three times what a camera makes, 300 MB decoded
MAX_BYTES = 2**30
