"""The page about a hyperparameter search: the winner, what mattered, where was looked, and all trials."""

from collections import Counter
from itertools import combinations

import numpy as np

from recipes import figures
from recipes.page import filled, save
from recipes.search_figure import importance, numeric

_TRIALS, _DRAWN, _FIELDS = 500, 1000, 3


def write(found, path) -> None:
    """Write the page of a `Search`, in the manner of a run's; see `recipes.report`.

    Raises: OutputError when `path` cannot be written.
    """
    save(render(found), path)


def render(found) -> str:
    """The page as HTML."""
    mattered = importance(found)
    ordered = sorted(found.trials, key=lambda trial: np.inf if trial.loss is None else trial.loss)
    return filled(
        "search.html.jinja", found=found, states=Counter(trial.state for trial in found.trials),
        importance=mattered if any(mattered.values()) else {}, names=list(mattered), shown=ordered[:_TRIALS],
        layouts=_layouts(found, numeric(found, list(mattered))[:_FIELDS]),
    )  # fmt: skip


def _layouts(found, names) -> list:
    """The trials over each two of the fields that mattered most."""
    seen = [(i, trial) for i, trial in enumerate(found.trials) if trial.accuracy is not None][:_DRAWN]
    accuracies = [trial.accuracy for _, trial in seen]
    if not seen or len(names) < 2:
        return []
    low, span = min(accuracies), (max(accuracies) - min(accuracies)) or 1
    drawn = []
    for pair in combinations(names, 2):
        points = [
            (*(trial.values[name] for name in pair), (trial.accuracy - low) / span, i < found.coarse,
             trial == found.best)
            for i, trial in seen if set(pair) <= set(trial.values)
        ]  # fmt: skip
        told = f"{len(points)} trials over {pair[0]} and {pair[1]}; the best at " + " and ".join(
            f"{found.best.values[name]:.3g}" for name in pair
        )
        drawn.append(figures.scatter(points, pair, told))
    return drawn
