"""What is odd in a dataset: damaged, duplicate, mislabelled or unsupported files."""
