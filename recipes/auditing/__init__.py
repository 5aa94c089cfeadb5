"""Audit a dataset: find damaged, duplicate and unsupported files, and odd classes."""
