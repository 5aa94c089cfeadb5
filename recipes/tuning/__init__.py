"""Search for the best hyperparameters."""
