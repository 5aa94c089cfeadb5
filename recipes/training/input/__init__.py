"""Train on augmented batches that other machines prepare."""
