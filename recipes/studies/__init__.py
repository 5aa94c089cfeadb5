"""Compare several trainings: ablations, ensembles, rankings of networks."""
