"""Keras layers that train with noise and average it out at test time."""

from layers.batch_statistics import freeze_batch_statistics

__all__ = ["freeze_batch_statistics"]
