"""Datasets in a few large files."""
