"""The ledger: the gain of each trick on held-out images with its interval, and its cost."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from recipes.core.text import described, percent

TELLING = 50  # with fewer images, the gain of a trick would not exceed the noise
_DRAWS = 2000  # number of bootstrap resamples
_MANY = 10_000  # from this number of images on, the normal interval replaces the bootstrap
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no significant difference"


@dataclass(frozen=True)
class Gain:
    """A row of the ledger: the gain of a trick, such as a test-time average, on held-out images.

    Attributes:
        trick: Name of the trick.
        accuracy: Accuracy with the trick; None if it was not measured.
        gain: Gain of accuracy over the classifier without the trick; None if there is no such classifier.
        interval: 95 % interval of `gain` by a paired bootstrap over the images. It does not include the variation
            between trainings.
        nats: Gain in the mean log-likelihood of the true class, nats.
        nats_interval: 95 % interval of `nats`.
        seconds: Seconds that the trick adds to the training.
        cost: Cost of a prediction with the trick divided by the cost without it.
        kept: Whether the result uses the trick by default.
        note: The reason for `kept`.
        epoch: Epoch of the training that produced the weights; None if nothing was trained.
    """

    trick: str
    accuracy: float | None
    gain: float | None = None
    interval: tuple[float, float] | None = None
    nats: float | None = None
    nats_interval: tuple[float, float] | None = None
    seconds: float = 0.0
    cost: float = 1.0
    kept: bool = True
    note: str = ""
    epoch: int | None = None

    @property
    def verdict(self) -> str:
        """BETTER, WORSE or NO_DIFFERENCE; see the function `verdict`."""
        return verdict(*(interval for interval in (self.interval, self.nats_interval) if interval))

    def __repr__(self) -> str:
        accuracy = None if self.accuracy is None else percent(self.accuracy)
        gain = None if self.gain is None else f"{100 * self.gain:+.1f} points"
        return described("Gain", repr(self.trick), accuracy, gain, "kept" if self.kept else "not kept")

    def __str__(self) -> str:
        parts = [self.trick + ":"]
        if self.accuracy is not None:
            parts.append(f"{self.accuracy:.1%}")
        if self.gain is not None and self.interval is not None and self.nats is not None:
            low, high = (100 * end for end in self.interval)
            parts.append(f"({100 * self.gain:+.1f} points, {low:+.1f} to {high:+.1f}; {self.nats:+.3f} nats)")
        parts += [f"in {self.seconds:.1f} s"] if self.seconds else []
        parts += [f"for {self.cost:.1f} × the prediction"] if self.cost != 1 else []
        return " ".join(parts) + (f": {self.note}" if self.note else "")


def verdict(*intervals: tuple[float, float]) -> str:
    """Return BETTER, WORSE or NO_DIFFERENCE for the paired intervals of the gains in accuracy and likelihood.

    BETTER: one interval lies above 0 and none below. WORSE: the interval of accuracy lies below 0, or the interval of
    likelihood lies below 0 and the interval of accuracy not above 0. NO_DIFFERENCE: all other cases.

    Args:
        *intervals: The interval of accuracy, then the interval of likelihood.
    """
    if intervals and intervals[0][1] < 0:
        return WORSE
    gained, lost = any(low > 0 for low, _ in intervals), any(high < 0 for _, high in intervals)
    if gained == lost:
        return NO_DIFFERENCE
    return BETTER if gained else WORSE


_WORDS = {BETTER: "significant gain", WORSE: "significantly worse", NO_DIFFERENCE: "no significant gain"}


def training_outcome(row: Gain) -> str:
    """Return a text that states whether finetuning gained, and whether its weights are kept.

    The weights are kept if accuracy or likelihood gains more than one standard error and neither is lower; see
    `selection.better`. This criterion is weaker than significance.
    """
    if not row.kept:
        lower = " in accuracy or likelihood, but the other of the two is lower" if row.verdict == BETTER else ""
        return f"{_WORDS[row.verdict]}{lower}; reverted to the linear classifier"
    if row.verdict == BETTER:
        return f"{_WORDS[BETTER]}; kept"
    return "gain of more than one standard error, not significant at 95 %; kept"


def compared(trick: str, without: np.ndarray, with_it: np.ndarray, labels: np.ndarray, **fields: Any) -> Gain:
    """Return the row of a trick. Its note and `kept` follow from the intervals unless `fields` contains them.

    Args:
        trick: Name of the trick.
        without: Probabilities of the images without the trick, (n, classes).
        with_it: Probabilities of the same images with the trick, (n, classes).
        labels: Integer labels, (n,).
        **fields: Further fields of `Gain`, and the argument `level` of `gain_over`.
    """
    return gain_over(trick, [without], with_it, labels, **fields)


def gain_over(
    trick: str, others: Iterable[np.ndarray], probabilities: np.ndarray, labels: np.ndarray, *, level: float = 0.95,
    requested: bool = False, **fields: Any,
) -> Gain:  # fmt: skip
    """Return the row that compares a trick with the average over several classifiers; see `compared`.

    Args:
        trick: Name of the trick.
        others: Probabilities of the images by each of the other classifiers, (n, classes).
        probabilities: Probabilities of the same images with the trick, (n, classes).
        labels: Integer labels, (n,).
        level: Confidence level of the intervals.
        requested: Whether the user requested the trick, so that it is used whatever its gain.
        **fields: Further fields of `Gain`.
    """
    before = [np.mean(each, 0) for each in zip(*(_right_and_nats(p, labels) for p in others), strict=True)]
    after = _right_and_nats(probabilities, labels)
    (gain, interval), (nats, nats_interval) = (
        paired_bootstrap(b - a, level=level) for a, b in zip(before, after, strict=True)
    )
    row = Gain(trick, float(after[0].mean()), gain, interval, nats, nats_interval, **fields)
    if "kept" in fields:
        return row
    few = len(labels) < TELLING
    kept = requested or (row.verdict == BETTER and not few)
    words = f"{len(labels)} images are too few to measure a gain" if few else _WORDS[row.verdict]
    return replace(row, kept=kept, note=row.note or f"{words}: {'requested' if requested else 'on' if kept else 'off'}")


def paired_bootstrap(differences: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Return the mean of paired differences and its bootstrap percentile interval (Efron 1979).

    From 10,000 images on, the interval is the normal one, mean ± z σ / √n. The percentiles are close to it, and
    resampling would take seconds.

    Args:
        differences: One difference per image, (n,).
        seed: Seed of the resampling.
        level: Confidence level of the interval.
    """
    n, mean = len(differences), float(differences.mean())
    if n >= _MANY:
        reach = NormalDist().inv_cdf((1 + level) / 2) * float(differences.std()) / math.sqrt(n)
        return mean, (mean - reach, mean + reach)
    random = np.random.default_rng(seed)
    means = np.array([differences[random.integers(0, n, n)].mean() for _ in range(_DRAWS)])
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return mean, (float(low), float(high))


def _right_and_nats(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each image is classified correctly, as 1 or 0, and the log-likelihood of its true class."""
    p = np.asarray(probabilities, np.float64)
    return (p.argmax(1) == labels).astype(float), np.log(np.maximum(p[np.arange(len(p)), labels], 1e-12))


def ledger_table(rows: Sequence[Gain]) -> str:
    """Return the ledger as aligned text; an empty string without rows."""
    if not rows:
        return ""
    heads = ("trick", "accuracy", "gain, points", "95 % interval", "nats", "training, s", "prediction", "")
    cells = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(cell[i]) for cell in cells) for i in range(len(heads) - 1)]
    lines = []
    for cell in cells:
        numbers = (text.rjust(width) for text, width in zip(cell[1:-1], widths[1:], strict=True))
        lines.append("  ".join([cell[0].ljust(widths[0]), *numbers, cell[-1]]).rstrip())
    return "\n".join(lines)


def _cells(row: Gain) -> tuple[str, ...]:
    points = row.interval and " to ".join(f"{100 * end:+.1f}" for end in row.interval)
    return (
        row.trick,
        "" if row.accuracy is None else f"{row.accuracy:.1%}",
        "" if row.gain is None else f"{100 * row.gain:+.1f}",
        points or "",
        "" if row.nats is None else f"{row.nats:+.3f}",
        f"{row.seconds:.1f}" if row.seconds else "",
        f"{row.cost:.1f} ×",
        row.note,
    )
