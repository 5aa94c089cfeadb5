"""Run one training, save its state, and recover from faults and signals."""
