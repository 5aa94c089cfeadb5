"""Keras optimizers, schedules and full-batch minimisers, from SGD with momentum to L-BFGS."""
