"""Training by gradient steps, from the batches to the kept weights."""
