"""Draw figures as inline SVG in the page's colours, legible on a light and on a dark background."""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 360, 230  # the width of a phone, so that text in figures is as large as text on the page
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 338, 30, 190
_MAX_POINTS = 300  # maximum number of points of a curve
_INK = "#010203"  # matplotlib draws text and axes in this colour; the page replaces it by the colour of its text


class _Axes:
    """Map numbers to positions in the figure."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]):
        self.x, self.y = x, y

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self.x, self.y
        right = (x - x0) / (x1 - x0 or 1)
        up = (y - y0) / (y1 - y0 or 1)
        return round(_LEFT + right * (_RIGHT - _LEFT), 1), round(_BOTTOM - up * (_BOTTOM - _TOP), 1)

    def line(self, points: Iterable[tuple[float, float]], style: str) -> Markup:
        places = " ".join(f"{x},{y}" for x, y in (self.at(*point) for point in points))
        return Markup('<polyline points="{}" class="{}"/>').format(places, style)

    def ticks(
        self, across: Sequence[float], up: Sequence[float], format_across: Callable[[float], str] = str,
        format_up: Callable[[float], str] = str,
    ) -> Markup:  # fmt: skip
        marks = []
        for y in up:
            (left, place), (right, _) = self.at(self.x[0], y), self.at(self.x[1], y)
            marks.append(Markup('<path d="M{} {}H{}" class="grid"/>').format(left, place, right))
            marks.append(_text(left - 6, place + 4, format_up(y), "end"))
        for x in across:
            place, _ = self.at(x, self.y[0])
            marks.append(_text(place, _BOTTOM + 16, format_across(x), "middle"))
        return Markup("").join(marks)


def curves(history: Mapping[str, Sequence[float]], chosen: tuple[int, float] | None = None) -> list[Markup]:
    """Draw training and validation loss and accuracy over the epochs.

    Args:
        history: One list per metric, one value per epoch; empty for a run without gradient steps.
        chosen: (epoch, validation accuracy) of the weights that the training returns, marked by a ring.

    Returns:
        One figure per metric.
    """
    rings = {"loss": None, "accuracy": chosen}
    return [_curve(history, metric, ring) for metric, ring in rings.items() if history.get(f"val_{metric}")]


def _curve(history: Mapping[str, Sequence[float]], metric: str, ring: tuple[int, float] | None) -> Markup:
    series = [("training", "c2", history.get(metric, [])), ("validation", "c1", history[f"val_{metric}"])]
    values = [v for *_, ys in series for v in ys if math.isfinite(v)] + ([ring[1]] if ring else [])
    epochs = max(len(ys) for *_, ys in series)
    up = _round_numbers(min(values), max(values))
    axes = _Axes((1, max(2, epochs)), (up[0], up[-1]))
    across = sorted({max(1, round(x)) for x in _round_numbers(1, max(2, epochs)) if x <= max(2, epochs)})
    parts = [
        axes.ticks(across, up, format_up=_percent if metric == "accuracy" else _number),
        _text(_LEFT, 14, metric, "start", "strong"),
    ]
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, "epoch", "middle"))
    for i, (name, colour, ys) in enumerate(series):
        step = math.ceil(len(ys) / _MAX_POINTS) or 1
        points = [(e, y) for e, y in enumerate(ys, 1) if math.isfinite(y) and (e % step == 0 or e in (1, len(ys)))]
        parts.append(axes.line(points, f"line {colour}"))
        if len(points) <= 40:
            parts += [
                Markup('<circle cx="{}" cy="{}" r="2.5" class="{}"/>').format(*axes.at(*p), colour) for p in points
            ]
        x = 150 + 100 * i
        parts.append(Markup('<path d="M{} 10h18" class="line {}"/>').format(x, colour))
        parts.append(_text(x + 23, 14, name, "start"))
    ends = [f"{name} from {_value(ys[0], metric)} to {_value(ys[-1], metric)}" for name, _, ys in series if ys]
    described = "; ".join(ends)
    if ring:
        parts.append(Markup('<circle cx="{}" cy="{}" r="7" class="ringed hollow"/>').format(*axes.at(*ring)))
        described += f"; ringed at epoch {ring[0]}, as in the ledger: {_value(ring[1], metric)}"
    return _svg(parts, f"{metric} over {epochs} epochs: {described}")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _value(value: float, metric: str) -> str:
    return f"{value:.1%}" if metric == "accuracy" else f"{value:.3f}"


def _round_numbers(low: float, high: float) -> list[float]:
    """Return three to six round numbers that reach from `low` or below to `high` or above."""
    from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    return [float(x) for x in locator.tick_values(low, high if high > low else low + 1e-3)]


def reliability(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Draw accuracy against confidence.

    Args:
        bins: (mean confidence, accuracy, images) per bin; a disc's area is proportional to the bin's number of images.
    """
    axes, total = _Axes((0, 1), (0, 1)), sum(n for *_, n in bins)
    quarters = (0, 0.25, 0.5, 0.75, 1)
    parts = [axes.ticks(quarters, quarters, _percent, _percent), axes.line([(0, 0), (1, 1)], "line dashed")]
    parts.append(_text(_LEFT, 14, "accuracy", "start", "strong"))
    parts.append(_text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, "confidence: probability of the predicted class", "middle"))
    for confidence, accuracy, n in bins:
        (x, y), (_, ideal) = axes.at(confidence, accuracy), axes.at(confidence, confidence)
        radius = round(3 + 11 * math.sqrt(n / total), 1)
        parts.append(Markup('<path d="M{} {}V{}" class="line c2"/>').format(x, ideal, y))
        parts.append(Markup('<circle cx="{}" cy="{}" r="{}" class="c1 seen"/>').format(x, y, radius))
    described = "; ".join(f"confidence {c:.0%}, accuracy {a:.0%} ({n} images)" for c, a, n in bins)
    return _svg(parts, f"Accuracy by confidence: {described}")


def interval(low: float, point: float, high: float, axis: tuple[float, float], *, on: bool = True) -> Markup:
    """Draw a point with its interval, for a table cell that also has the numbers.

    Args:
        low: Lower end of the interval.
        point: The estimate.
        high: Upper end of the interval.
        axis: Ends of the axis; 0 is marked if it lies between them.
        on: Whether to use the accent colour instead of grey.
    """
    start, end = axis

    def place(value: float) -> float:
        return round(4 + 112 * (value - start) / (end - start or 1), 1)

    zero = Markup('<path d="M{} 0V16" class="grid"/>').format(place(0)) if start < 0 < end else Markup("")
    colour = "c1" if on else "c0"
    return Markup(
        '<svg class="interval" viewBox="0 0 120 16" role="img" aria-label="{:.1f} to {:.1f}, most likely {:.1f}">{}'
        '<path d="M{} 8H{}" class="line {}"/><circle cx="{}" cy="8" r="4" class="{}"/></svg>'
    ).format(100 * low, 100 * high, 100 * point, zero, place(low), place(high), colour, place(point), colour)


@contextmanager
def page_colours() -> Iterator[None]:
    """Set matplotlib's options that `inline` expects."""
    from matplotlib import rc_context

    keys = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = dict.fromkeys(keys, _INK)  # matplotlib's stubs list every valid key
    settings.update({"svg.fonttype": "none", "svg.hashsalt": "recipes"})
    with rc_context(settings):
        yield


def inline(figure: "Figure", description: str) -> Markup:
    """Return a matplotlib figure, drawn under `page_colours`, as inline SVG.

    Args:
        figure: The figure.
        description: The text alternative.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    body = re.sub(r"^.*?<svg[^>]*>", "", file.getvalue(), count=1, flags=re.DOTALL).replace(_INK, "currentColor")
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the figures of one page must not share these names
    width, height = (72 * inches for inches in figure.get_size_inches())
    start = Markup('<svg class="chart" viewBox="0 0 {:.6g} {:.6g}" role="img" aria-label="{}">')
    return start.format(width, height, description) + Markup(body)


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, style, text)


def _svg(parts: Iterable[Markup], description: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, description, Markup("").join(parts)
    )
