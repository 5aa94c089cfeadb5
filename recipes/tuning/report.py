"""The page about a hyperparameter search: the winner, what mattered, where was looked, and all trials."""

from collections import Counter
from itertools import combinations

import numpy as np

from recipes.reports import svg as figures
from recipes.reports.command_line import configuration
from recipes.reports.page import filled, save
from recipes.tuning.figure import ENOUGH, grounds, importance, numeric

_TRIALS, _DRAWN, _FIELDS = 500, 1000, 3


def write(found, path) -> None:
    """Write the page of a `Search`, in the manner of a run's; see `recipes.reports.report`.

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
        layouts=_layouts(found, numeric(found, list(mattered))[:_FIELDS]), contour=_contour(found, list(mattered)),
        few=_few(found), configuration=configuration(found.recipe),
    )  # fmt: skip


def _few(found) -> str:
    complete = sum(trial.state == "complete" for trial in found.trials)
    return f"it takes {ENOUGH} trials that came to their end, here {complete} did"


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


def _contour(found, names) -> dict:
    """The loss of the images that choose over the two fields that mattered most; in words where it cannot be drawn."""
    pair, seen = grounds(found, names)
    if len(pair) < 2:
        return {"why": "it takes two numeric fields"}
    if len(seen) < ENOUGH:
        return {"why": _few(found)}
    seen = sorted(seen, key=lambda trial: trial.loss)
    drawn = seen if len(seen) <= _DRAWN else [seen[i] for i in np.linspace(0, len(seen) - 1, _DRAWN).astype(int)]
    low, high = (
        f"{trial.loss:.3f} nats at {pair[0]} {trial.values[pair[0]]:.3g}, {pair[1]} {trial.values[pair[1]]:.3g}"
        for trial in (seen[0], seen[-1])
    )
    told = f"Loss over {pair[0]} and {pair[1]}, between {len(drawn)} complete trials: lowest {low}; highest {high}"
    points = [(*(trial.values[name] for name in pair), trial.loss) for trial in drawn]
    figure = figures.contour(points, pair, told)
    return {"pair": pair, "figure": figure, "told": told} if figure else {"why": "the trials span no area"}
