"""Extract features of the frozen network, and fit linear classifiers to them."""
