"""Write the page about a hyperparameter search: the winner, the importances, the trials and the contour."""

import os
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

from markupsafe import Markup

from recipes.reports import svg
from recipes.reports.command_line import configuration
from recipes.reports.page import filled, save
from recipes.tuning.figure import (
    NotDrawable,
    column,
    draw_contour,
    draw_trials,
    few_trials,
    importance,
    numeric,
    surface,
)
from recipes.tuning.record import SearchRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROWS, _MAX_FIELDS = 500, 3  # maximum rows of the table of trials, and number of fields that the figures combine


def write(search: SearchRecord, path: str | os.PathLike) -> None:
    """Write the page of a search as one self-contained HTML file.

    Raises:
        OutputError: If `path` cannot be written.
    """
    save(render(search), path)


def render(search: SearchRecord) -> str:
    """Return the page as HTML."""
    shares = importance(search)
    names = list(shares)
    return filled(
        "search.html.jinja", search=search, states=Counter(trial.state for trial in search.trials),
        importance=shares if any(shares.values()) else {}, names=names,
        shown=sorted(search.trials, key=lambda trial: trial.rank)[:_MAX_ROWS],
        trials=_trials(search, numeric(search, names)[:_MAX_FIELDS]), contour=_contour(search, names),
        few=few_trials(search), configuration=configuration(search.recipe),
    )  # fmt: skip


def _panel() -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(4.4, 3.2), layout="constrained")


def _trials(search: SearchRecord, names: list[str]) -> list[Markup]:
    """Return a figure of the trials for each pair of the most important fields."""
    figures = []
    for pair in combinations(names, 2):
        best = " and ".join(f"{name} {column([search.best], name)[0]:.3g}" for name in pair)
        with svg.page_colours():
            drawn = _panel()
            try:
                draw_trials(drawn.subplots(), search, pair)
            except NotDrawable:
                continue
            figures.append(svg.inline(drawn, f"The trials over {pair[0]} and {pair[1]}; the best trial is at {best}"))
    return figures


def _contour(search: SearchRecord, names: list[str]) -> dict[str, str]:
    """Return the contour of the loss and its description, or the reason why it cannot be drawn."""
    try:
        shape = surface(search, names)
    except NotDrawable as reason:
        return {"why": str(reason)}
    low, high = (
        f"{trial.rank:.3f} nats at " + ", ".join(f"{name} {column([trial], name)[0]:.3g}" for name in shape.pair)
        for trial in (shape.trials[0], shape.trials[-1])
    )
    first, second = shape.pair
    text = f"Loss over {first} and {second}, from {len(shape.trials)} complete trials: lowest {low}; highest {high}"
    with svg.page_colours():
        drawn = _panel()
        draw_contour(drawn.subplots(), shape, search)
        return {"figure": svg.inline(drawn, text), "description": text}
