"""What to train: recipes, the plan that chooses one, and the validated request."""
