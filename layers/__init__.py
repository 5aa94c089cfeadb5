"""Keras layers that train with noise and average it out at test time."""
