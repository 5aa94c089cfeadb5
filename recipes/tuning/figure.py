"""A search as a picture: what mattered, where was looked, and what was found there."""

import numpy as np

from recipes.reports.svg import logarithmic

ENOUGH = 4  # complete trials, to say what mattered and to draw a contour


def figure(found):
    """A matplotlib Figure of a `Search`: importance of the fields, the layout of the trials, a contour of the loss."""
    from matplotlib.figure import Figure

    shares = importance(found)
    drawn = Figure(figsize=(13, 4), layout="constrained")
    bars, layout, contour = drawn.subplots(1, 3)
    names = list(shares)
    bars.barh(names[::-1], [shares[name] for name in names[::-1]])
    bars.set(title="importance", xlabel="share (PED-ANOVA)")
    _layout(layout, found, names)
    _contour(contour, found, names)
    return drawn


def importance(found) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al. 2023) where enough trials came to their end, otherwise none is told."""
    import optuna

    complete = [trial for trial in found.trials if trial.state == "complete"]
    names = [name for name, value in found.best.values.items()]
    if len(complete) < ENOUGH:
        return dict.fromkeys(names, 0.0)
    return optuna.importance.get_param_importances(found.study)


def numeric(found, names) -> list[str]:
    values = found.best.values
    return [name for name in names if isinstance(values.get(name), int | float)]


def _scaled(axes, found, names) -> None:
    from matplotlib.ticker import NullFormatter

    for axis, set_scale, name in zip((axes.xaxis, axes.yaxis), (axes.set_xscale, axes.set_yscale), names, strict=False):
        values = [trial.values[name] for trial in found.trials if name in trial.values]
        if logarithmic(values):
            set_scale("log")
            axis.set_minor_formatter(NullFormatter())  # the powers of ten are labelled, and would be overwritten
        axis.set_label_text(name)


def _layout(axes, found, names) -> None:
    pair = (numeric(found, names) * 2)[:2]
    axes.set_title("where was looked: coarse (ringed), then fine")
    if not pair:
        return axes.set_axis_off()
    coarse = found.coarse
    shades = [trial.accuracy for trial in found.trials if trial.accuracy is not None]
    shared = {"vmin": min(shades), "vmax": max(max(shades), min(shades) + 0.01)}  # one scale, also where all are equal
    for trials, style in (
        (found.trials[:coarse], {"s": 90, "edgecolors": "tab:red", "linewidths": 1.5}),
        (found.trials[coarse:], {"s": 40}),
    ):
        seen = [trial for trial in trials if trial.accuracy is not None and set(pair) <= set(trial.values)]
        x, y = ([trial.values[name] for trial in seen] for name in pair)
        if not seen:
            continue
        points = axes.scatter(x, y, c=[t.accuracy for t in seen], **shared, **style)
    axes.figure.colorbar(points, ax=axes, label="accuracy on the images that choose")
    _scaled(axes, found, pair)
    return None


def grounds(found, names) -> tuple[list[str], list]:
    """The two numeric fields that mattered most, and the complete trials, which a contour is drawn over and through."""
    pair = numeric(found, names)[:2]
    return pair, [trial for trial in found.trials if trial.state == "complete" and set(pair) <= set(trial.values)]


def _even(values) -> np.ndarray:
    """As they lie on their axis, from 0 to 1: a triangle's neighbours are those of the eye."""
    scaled = np.log10(values) if logarithmic(values) else values
    return (scaled - scaled.min()) / (np.ptp(scaled) or 1.0)


def _contour(axes, found, names) -> None:
    from matplotlib.tri import Triangulation

    pair, seen = grounds(found, names)
    axes.set_title("loss of the images that choose")
    if len(pair) < 2 or len(seen) < ENOUGH:
        axes.text(0.5, 0.5, "too few complete trials\nor numeric fields", ha="center", va="center")
        return axes.set_axis_off()
    x, y = (np.array([trial.values[name] for trial in seen]) for name in pair)
    try:
        triangles = Triangulation(_even(x), _even(y)).triangles
        filled = axes.tricontourf(x, y, triangles, [trial.loss for trial in seen], levels=12, cmap="viridis_r")
    except (RuntimeError, ValueError):  # all on one line
        axes.text(0.5, 0.5, "the trials span no area", ha="center", va="center", transform=axes.transAxes)
        return axes.set_axis_off()
    axes.plot(x, y, "k.", markersize=4)
    axes.plot(found.best.values[pair[0]], found.best.values[pair[1]], "r*", markersize=14)
    axes.figure.colorbar(filled, ax=axes, label="negative log-likelihood, nats")
    _scaled(axes, found, pair)
    return None
