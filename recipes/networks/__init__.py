"""Pretrained networks, their stages, and the classifiers made of them."""
