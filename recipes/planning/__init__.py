"""Decide what to train: recipes, the plan that chooses a recipe, and the validated request."""

NAMES = ("probe", "few", "all", "scratch")  # names of the ready-made recipes
