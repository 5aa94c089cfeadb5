"""Training by gradient steps, from the batches to the chosen weights."""
