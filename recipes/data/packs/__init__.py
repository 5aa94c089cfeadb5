"""Packs: datasets in a few large files."""
