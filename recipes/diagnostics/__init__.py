"""Watching a training: loss curves, update sizes, activations."""
