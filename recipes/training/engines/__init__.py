"""The training step on TensorFlow, JAX and torch, on one device or several."""
