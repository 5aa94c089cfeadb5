"""Comparisons of several trainings: ablations, ensembles, rankings of networks."""
