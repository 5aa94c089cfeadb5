"""Augmented batches that other machines prepare."""
