"""Find a step along a direction that satisfies the strong Wolfe conditions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Point:
    """Hold the function's value at x = start + step · direction, and `slope`, the derivative by the step."""

    step: float
    value: float
    slope: float
    x: np.ndarray
    gradient: np.ndarray


def strong_wolfe(
    evaluate: Callable[[float], Point],
    start: Point,
    step: float,
    *,
    decrease: float = 1e-4,
    curvature: float = 0.9,
    noise: float = 0.0,
    max_evaluations: int = 25,
) -> Point | None:
    """Return a point with φ(α) ≤ φ(0) + c₁ α φ'(0) and |φ'(α)| ≤ c₂ |φ'(0)|, or None after `max_evaluations`.

    An interval is first widened until it contains such a point, then narrowed down by cubic interpolation (Nocedal and
    Wright, 2006, algorithms 3.5 and 3.6). Values that differ by less than their rounding error, `noise`, count as
    equal, and slopes are compared instead, as in the approximate Wolfe conditions of Hager and Zhang (2005).

    Args:
        evaluate: step → `Point`.
        start: the point at step 0, with a negative slope.
        step: the first step to try.
        decrease: c₁.
        curvature: c₂, in (c₁, 1).
        noise: absolute error of a value.
        max_evaluations: largest number of evaluations.

    Raises:
        ValueError: If the slope at the start is not negative.
    """
    if not start.slope < 0:
        raise ValueError(
            f"The slope along the direction must be negative. Got {start.slope:.3g}. Pass a direction of descent."
        )
    low: Point = start
    high: Point | None = None
    for _ in range(max_evaluations):
        point = evaluate(step)
        bound = start.value + decrease * step * start.slope + noise
        if not point.value <= min(bound, low.value + noise):  # the condition is also true for a NaN value
            high = point
        elif abs(point.slope) <= -curvature * start.slope:
            return point
        else:
            if high is None and point.slope < 0:
                step = _beyond(low, point)
                low = point
                continue
            if high is None or point.slope * (high.step - low.step) >= 0:
                high = low
            low = point
        step = _between(low, high, noise)
        if step in (low.step, high.step):
            return None
    return None


def _beyond(low: Point, point: Point) -> float:
    """Return a step beyond `point` where the slope would vanish, limited to 1.1 to 4 intervals farther."""
    width = point.step - low.step
    growth = point.slope / (low.slope - point.slope) if point.slope > low.slope else 4.0
    return point.step + width * float(np.clip(growth, 1.1, 4.0))


def _between(low: Point, high: Point, noise: float) -> float:
    """Return the step of the cubic's minimum, at least a tenth of the interval away from the ends."""
    width = high.step - low.step
    if not np.isfinite(high.value) or not np.isfinite(high.slope):
        return low.step + 0.1 * width
    fraction = _cubic_minimum(high.value - low.value, low.slope * width, high.slope * width, noise)
    return low.step + width * float(np.clip(fraction, 0.1, 0.9))


def _cubic_minimum(rise: float, slope_0: float, slope_1: float, noise: float) -> float:
    """Return the position in [0, 1] of the minimum of the cubic with the given rise and end slopes.

    If the rise is only noise, return the root of the secant of the slopes.
    """
    if abs(rise) <= 2 * noise and slope_1 > slope_0:
        return -slope_0 / (slope_1 - slope_0)
    mean = slope_0 + slope_1 - 3 * rise
    discriminant = mean * mean - slope_0 * slope_1
    if discriminant < 0:
        return 0.5
    root = np.sqrt(discriminant)
    denominator = slope_1 - slope_0 + 2 * root
    return 1 - (slope_1 + root - mean) / denominator if denominator else 0.5
