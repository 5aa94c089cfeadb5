"""What to train: recipes, the plan that chooses one, and the validated request."""

NAMES = ("probe", "few", "all", "scratch")  # of the ready-made recipes
