"""Audit a dataset: find damaged, duplicate, mislabelled and unsupported files."""
