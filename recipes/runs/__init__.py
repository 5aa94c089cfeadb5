"""Save, load and resume runs."""
