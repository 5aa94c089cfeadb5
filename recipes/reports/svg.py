"""Figures as inline SVG in the page's own colours, so that they read on light and on dark."""

import math
import re
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

_WIDTH, _HEIGHT = 360, 230  # as wide as a phone: its text is as large there as the page's
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 338, 30, 190
_POINTS = 300  # of a curve


class _Axes:
    """From numbers to places in the figure."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], bottom: int = _BOTTOM):
        self.x, self.y, self.bottom = x, y, bottom

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        right = (x - x0) / (x1 - x0 or 1)
        up = (y - y0) / (y1 - y0 or 1)
        return round(_LEFT + right * (_RIGHT - _LEFT), 1), round(self.bottom - up * (self.bottom - _TOP), 1)

    def line(self, points, style: str) -> Markup:
        places = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points))
        return Markup('<polyline points="{}" class="{}"/>').format(places, style)

    def ticks(self, across: Sequence[float], up: Sequence[float], told_across=str, told_up=str) -> Markup:
        marks = []
        for y in up:
            (left, place), (right, _) = self.at(self.x[0], y), self.at(self.x[1], y)
            marks.append(Markup('<path d="M{} {}H{}" class="grid"/>').format(left, place, right))
            marks.append(_text(left - 6, place + 4, told_up(y), "end"))
        for x in across:
            place, _ = self.at(x, self.y[0])
            marks.append(_text(place, self.bottom + 16, told_across(x), "middle"))
        return Markup("").join(marks)


def curves(history: dict[str, list[float]], chosen: tuple[int, float] | None = None) -> list[Markup]:
    """Loss and accuracy over the epochs, training and validation; none where nothing was trained by gradient steps.

    chosen: (epoch, validation accuracy) of the weights that the training ends with, to be ringed.
    """
    rings = {"loss": None, "accuracy": chosen}
    return [_curve(history, metric, ring) for metric, ring in rings.items() if history.get(f"val_{metric}")]


def _curve(history, metric: str, ring: tuple[int, float] | None) -> Markup:
    series = [("training", "c2", history.get(metric, [])), ("validation", "c1", history[f"val_{metric}"])]
    values = [v for *_, ys in series for v in ys if math.isfinite(v)] + ([ring[1]] if ring else [])
    epochs = max(len(ys) for *_, ys in series)
    up = _nice(min(values), max(values))
    axes = _Axes((1, max(2, epochs)), (up[0], up[-1]))
    across = sorted({max(1, round(x)) for x in _nice(1, max(2, epochs)) if x <= max(2, epochs)})
    parts = [
        axes.ticks(across, up, told_up=_percent if metric == "accuracy" else _number),
        _text(_LEFT, 14, metric, "start", "strong"),
    ]
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, "epoch", "middle"))
    for i, (name, colour, ys) in enumerate(series):
        step = math.ceil(len(ys) / _POINTS) or 1
        points = [(e, y) for e, y in enumerate(ys, 1) if math.isfinite(y) and (e % step == 0 or e in (1, len(ys)))]
        parts.append(axes.line(points, f"line {colour}"))
        if len(points) <= 40:
            parts += [
                Markup('<circle cx="{}" cy="{}" r="2.5" class="{}"/>').format(*axes.at(*p), colour) for p in points
            ]
        x = 150 + 100 * i
        parts.append(Markup('<path d="M{} 10h18" class="line {}"/>').format(x, colour))
        parts.append(_text(x + 23, 14, name, "start"))
    told = "; ".join(f"{name} from {_told(ys[0], metric)} to {_told(ys[-1], metric)}" for name, _, ys in series if ys)
    if ring:
        parts.append(Markup('<circle cx="{}" cy="{}" r="7" class="ringed hollow"/>').format(*axes.at(*ring)))
        told += f"; ringed at epoch {ring[0]}, as in the ledger: {_told(ring[1], metric)}"
    return _svg(parts, f"{metric} over {epochs} epochs: {told}")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _told(value: float, metric: str) -> str:
    return f"{value:.1%}" if metric == "accuracy" else f"{value:.3f}"


def _nice(low: float, high: float, whole: bool = False) -> list[float]:
    """Three to six round numbers, or `whole` ones, that reach from `low` or below to `high` or above."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(4, steps=[1, 2, 5, 10], integer=whole)
    return [float(x) for x in locator.tick_values(low, high if high > low else low + 1e-3)]


def reliability(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Accuracy against confidence, one disc a bin, its area the number of its images; below, how many these are."""
    axes, total = _Axes((0, 1), (0, 1)), sum(n for *_, n in bins)
    quarters = (0, 0.25, 0.5, 0.75, 1)
    parts = [axes.ticks(quarters, quarters, _percent, _percent), axes.line([(0, 0), (1, 1)], "line dashed")]
    parts.append(_text(_LEFT, 14, "accuracy", "start", "strong"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, "confidence: probability of the named class", "middle"))
    for confidence, accuracy, n in bins:
        (x, y), (_, ideal) = axes.at(confidence, accuracy), axes.at(confidence, confidence)
        radius = round(3 + 11 * math.sqrt(n / total), 1)
        parts.append(Markup('<path d="M{} {}V{}" class="line c2"/>').format(x, ideal, y))
        parts.append(Markup('<circle cx="{}" cy="{}" r="{}" class="c1 seen"/>').format(x, y, radius))
    told = "; ".join(f"{c:.0%} confident, {a:.0%} right ({n} images)" for c, a, n in bins)
    return _svg(parts, f"Accuracy by confidence: {told}")


def scatter(points: Sequence[tuple], names: tuple[str, str], told: str) -> Markup:
    """Points (x, y, share 0..1 that says how full the disc is, ringed, largest) on the axes of `_plane`."""
    place, parts = _plane(points, names)
    for x, y, share, ringed, largest in points:
        parts.append(
            Markup('<circle cx="{}" cy="{}" r="{}" class="c1{}" fill-opacity="{:.2f}"/>').format(
                *place(x, y), 9 if largest else 5, " ringed" if ringed else " ring", 0.1 + 0.9 * share
            )
        )
    return _svg(parts, told)


def contour(points: Sequence[tuple], names: tuple[str, str], told: str) -> Markup | None:
    """Bands of the value of (x, y, value), linear between the points, the fuller the lower; the lowest point is ringed.

    None where the points span no area, or have one value.
    """
    from matplotlib.figure import Figure

    place, parts = _plane(points, names)
    (x, y), values = zip(*(place(*point[:2]) for point in points), strict=True), [value for *_, value in points]
    try:
        bands = Figure().subplots().tricontourf(x, y, values, levels=8) if min(values) < max(values) else None
    except (RuntimeError, ValueError):  # all on one line
        bands = None
    if bands is None:
        return None
    fills = np.linspace(0.9, 0.1, len(bands.layers)).round(2)
    for path, full in zip(bands.get_paths(), fills, strict=True):
        rings = ("L".join(f"{u:.1f} {v:.1f}" for u, v in ring) for ring in path.to_polygons())
        parts.append(Markup('<path d="{}" class="band" fill-opacity="{}"/>').format(
            "".join(f"M{ring}Z" for ring in rings), full))  # fmt: skip
    parts += [Markup('<circle cx="{}" cy="{}" r="2.5" class="dot"/>').format(*spot) for spot in zip(x, y, strict=True)]
    best = int(np.argmin(values))
    parts.append(Markup('<circle cx="{}" cy="{}" r="7" class="ringed hollow"/>').format(x[best], y[best]))
    return _svg([*parts, *_shades(fills, f"{min(values):.3f}", f"{max(values):.3f} nats")], told)


def _shades(fills, low: str, high: str) -> list[Markup]:
    """What the bands' fills stand for."""
    left = 218  # of it there is room for the name of the longest field
    bars = [
        Markup('<rect x="{}" y="5" width="6" height="10" class="band" fill-opacity="{}"/>').format(left + 6 * i, full)
        for i, full in enumerate(fills)
    ]
    return [_text(left - 5, 14, low, "end"), *bars, _text(left + 6 * len(fills) + 5, 14, high, "start")]


def logarithmic(values) -> bool:
    """Whether an axis of these is: where positive ones span more than a factor of ten."""
    return min(values) > 0 and max(values) > 10 * min(values)


def _plane(points: Sequence[tuple], names: tuple[str, str]):
    """Where (x, y) lies, and the axes to begin with."""
    columns = list(zip(*points, strict=True))[:2]
    logs = [logarithmic(values) for values in columns]
    across, up = (
        _nice(*(math.log10(v) if log else v for v in (min(values), max(values))), whole=log)
        for values, log in zip(columns, logs, strict=True)
    )
    axes = _Axes((across[0], across[-1]), (up[0], up[-1]))
    parts = [axes.ticks(across, up, *(_power if log else _number for log in logs))]
    parts.append(_text(_LEFT, 14, names[1], "start", "strong"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, names[0], "middle", "strong"))

    def place(*point) -> tuple[float, float]:
        return axes.at(*(math.log10(v) if log else v for v, log in zip(point, logs, strict=True)))

    return place, parts


def _power(exponent: float) -> str:
    """Of ten, with room for it beside the axis."""
    value = 10**exponent
    return _number(value) if 0.01 <= value < 1000 else re.sub(r"e([+-])0*", r"e\1", f"{value:.0e}").replace("e+", "e")


def interval(low: float, point: float, high: float, axis: tuple[float, float], *, on: bool = True) -> Markup:
    """A point with its interval, for a cell of a table that says the same in numbers; `axis` may include 0, marked."""
    start, end = axis

    def place(value):
        return round(4 + 112 * (value - start) / (end - start or 1), 1)

    zero = Markup('<path d="M{} 0V16" class="grid"/>').format(place(0)) if start < 0 < end else Markup("")
    colour = "c1" if on else "c0"
    return Markup(
        '<svg class="interval" viewBox="0 0 120 16" role="img" aria-label="{:.1f} to {:.1f}, most likely {:.1f}">{}'
        '<path d="M{} 8H{}" class="line {}"/><circle cx="{}" cy="8" r="4" class="{}"/></svg>'
    ).format(100 * low, 100 * high, 100 * point, zero, place(low), place(high), colour, place(point), colour)


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, style, text)


def _svg(parts: Sequence[Markup], told: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, told, Markup("").join(parts)
    )
