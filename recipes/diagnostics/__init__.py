"""Diagnose a training: losses, sizes of updates, activations, gradients."""
