"""Draw the figure of a search: importances of the fields, trials over two fields, and the loss over both."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recipes.tuning.record import SearchRecord, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MIN_COMPLETE = 4  # minimum number of complete trials for importances and for a contour
_MAX_DRAWN = 1000  # maximum number of trials per panel


class NotDrawable(ValueError):
    """Report that a panel has too little data; the message says what is missing."""


@dataclass(frozen=True)
class Surface:
    """Hold complete trials over two fields, lowest loss first, and the triangles (n, 3) between them."""

    pair: tuple[str, str]
    trials: Sequence[Trial]
    triangles: np.ndarray


def figure(search: SearchRecord) -> "Figure":
    """Return a matplotlib Figure with the importances, the trials, and the contour of the loss."""
    from matplotlib.figure import Figure

    shares = importance(search)
    names = list(shares)
    drawn = Figure(figsize=(13, 4), layout="constrained")
    bars, trials, contour = drawn.subplots(1, 3)
    bars.barh(names[::-1], [shares[name] for name in names[::-1]])
    bars.set(title="importance", xlabel="share (PED-ANOVA)")
    trials.set_title("trials" + (": coarse (ringed), then fine" if search.coarse else ""))
    contour.set_title("loss of the selection images")
    numbers = numeric(search, names)
    with _message_instead(trials):
        draw_trials(trials, search, (numbers * 2)[:2])
    with _message_instead(contour):
        draw_contour(contour, surface(search, names), search)
    return drawn


@contextmanager
def _message_instead(axes: "Axes") -> Iterator[None]:
    """Write the reason into a panel that cannot be drawn."""
    try:
        yield
    except NotDrawable as problem:
        axes.text(0.5, 0.5, str(problem), ha="center", va="center", wrap=True, transform=axes.transAxes)
        axes.set_axis_off()


def importance(search: SearchRecord) -> dict[str, float]:
    """Return each field's importance for separating good trials (PED-ANOVA; Watanabe et al. 2023), largest first.

    The importances sum to 1; all are 0 if too few trials are complete.
    """
    import optuna

    if sum(trial.complete for trial in search.trials) < MIN_COMPLETE or not isinstance(search.study, optuna.Study):
        return dict.fromkeys(search.best.values, 0.0)
    return optuna.importance.get_param_importances(search.study)


def numeric(search: SearchRecord, names: Iterable[str]) -> list[str]:
    """Return the fields whose values are numbers."""
    return [name for name in names if isinstance(search.best.values.get(name), int | float)]


def few_trials(search: SearchRecord) -> str:
    complete = sum(trial.complete for trial in search.trials)
    return f"it needs {MIN_COMPLETE} complete trials, and this search has {complete}"


def surface(search: SearchRecord, names: Iterable[str]) -> Surface:
    """Return the data of a contour over the first two numeric fields of `names`.

    Raises:
        NotDrawable: If there are fewer than two numeric fields, too few complete trials, or all trials lie on one line.
    """
    from matplotlib.tri import Triangulation

    first, *more = numeric(search, names) or [""]
    if not more:
        raise NotDrawable("it needs two numeric fields")
    pair = (first, more[0])
    trials = sorted((t for t in search.trials if t.complete and set(pair) <= set(t.values)), key=lambda t: t.rank)
    if len(trials) < MIN_COMPLETE:
        raise NotDrawable(few_trials(search))
    if len(trials) > _MAX_DRAWN:
        trials = [trials[i] for i in np.linspace(0, len(trials) - 1, _MAX_DRAWN).astype(int)]
    if not trials[0].rank < trials[-1].rank:
        raise NotDrawable("all complete trials have the same loss")
    try:
        triangles = Triangulation(*(_positions(column(trials, name)) for name in pair)).triangles
    except (RuntimeError, ValueError):
        raise NotDrawable("the trials lie on one line") from None
    return Surface(pair, trials, triangles)


def column(trials: Iterable[Trial], name: str) -> np.ndarray:
    """Return the values of a numeric field."""
    return np.array([trial.values[name] for trial in trials], np.float64)


def _logarithmic(values: np.ndarray) -> bool:
    """Return whether an axis is logarithmic, which holds for positive values that span more than a factor of ten."""
    return bool(values.min() > 0 and values.max() > 10 * values.min())


def _positions(values: np.ndarray) -> np.ndarray:
    """Return positions along the axis from 0 to 1, so that triangles join neighbouring points of the figure."""
    scaled = np.log10(values) if _logarithmic(values) else values
    return (scaled - scaled.min()) / (np.ptp(scaled) or 1.0)


def draw_trials(axes: "Axes", search: SearchRecord, pair: Sequence[str]) -> None:
    """Draw a disc per trial over two fields, coloured by accuracy; the trials of the coarse phase are ringed.

    Raises:
        NotDrawable: If there is no numeric field, or no trial with an accuracy.
    """
    shown = [
        (trial, trial.accuracy) for trial in search.trials
        if trial.accuracy is not None and pair and set(pair) <= set(trial.values)
    ][:_MAX_DRAWN]  # fmt: skip
    if not shown:
        raise NotDrawable("no trial has both an accuracy and numeric fields")
    trials, accuracies = [trial for trial, _ in shown], [accuracy for _, accuracy in shown]
    rings = {trial.number for trial in search.trials[: search.coarse]}
    coarse = [trial.number in rings for trial in trials]
    points = axes.scatter(
        column(trials, pair[0]), column(trials, pair[1]), c=accuracies, vmin=min(accuracies),
        vmax=max(max(accuracies), min(accuracies) + 0.01),  # makes a valid scale even if all values are equal
        s=[90 if ring else 40 for ring in coarse], edgecolors=["tab:red" if ring else "tab:gray" for ring in coarse],
        linewidths=1.5, clip_on=False,
    )  # fmt: skip
    _finish(axes, search, pair, points, "accuracy on the selection images")


def draw_contour(axes: "Axes", shape: Surface, search: SearchRecord) -> None:
    """Draw the loss, interpolated linearly between the complete trials, which are dots."""
    from matplotlib.tri import Triangulation

    x, y = (column(shape.trials, name) for name in shape.pair)
    losses = [trial.rank for trial in shape.trials]
    triangulation = Triangulation(x, y, shape.triangles)
    filled = axes.tricontourf(triangulation, losses, levels=12, cmap="viridis_r")
    axes.plot(x, y, "k.", markersize=4, clip_on=False)
    _finish(axes, search, shape.pair, filled, "negative log-likelihood, nats")


def _finish(axes: "Axes", search: SearchRecord, pair: Sequence[str], colours: "ScalarMappable", label: str) -> None:
    """Mark the best trial with a star, add the colour bar, and scale and name the axes."""
    from matplotlib.ticker import NullFormatter

    axes.plot(*(column([search.best], name) for name in pair), "r*", markersize=14, clip_on=False)
    root = axes.get_figure(root=True)
    assert root is not None  # these axes always have a figure
    root.colorbar(colours, ax=axes, label=label)
    for axis, set_scale, name in zip((axes.xaxis, axes.yaxis), (axes.set_xscale, axes.set_yscale), pair, strict=True):
        if _logarithmic(column((trial for trial in search.trials if name in trial.values), name)):
            set_scale("log")
            axis.set_minor_formatter(NullFormatter())  # labels between the powers of ten would overlap
        axis.set_label_text(name)
