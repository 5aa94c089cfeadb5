"""The frozen network's features and the linear classifiers fitted to them."""
