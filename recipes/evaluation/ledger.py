"""What each trick was worth: its gain on held-out images with an interval, and what it costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

TELLING = 50  # images, below which the gain of a trick would drown in noise
_DRAWS, _MANY = 2000, 10_000
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no significant difference"


@dataclass(frozen=True)
class Gain:
    """One row of the ledger: a trick, and what it is worth on held-out images against doing without it.

    accuracy: with the trick; None where it was not measured.
    gain, interval: of accuracy, and its 95 % interval (paired bootstrap over the images; it says nothing of the noise
        of a second training). None for what there is nothing to compare with.
    nats, nats_interval: likewise of the mean log-likelihood of the true class.
    seconds:  that it adds to the training.
    cost:     of a prediction with the trick, in predictions without it.
    kept:     whether the result uses it by default.
    note:     why, in words.
    epoch:    of the training whose weights these are, or are made of; None for what is no training.
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
        """BETTER, WORSE or NO_DIFFERENCE, see `verdict`."""
        return verdict(*(interval for interval in (self.interval, self.nats_interval) if interval))

    def __str__(self) -> str:
        parts = [self.trick + ":"]
        if self.accuracy is not None:
            parts.append(f"{self.accuracy:.1%}")
        if self.gain is not None:
            low, high = (100 * end for end in self.interval)
            parts.append(f"({100 * self.gain:+.1f} points, {low:+.1f} to {high:+.1f}; {self.nats:+.3f} nats)")
        parts += [f"in {self.seconds:.1f} s"] if self.seconds else []
        parts += [f"for {self.cost:.1f} × the prediction"] if self.cost != 1 else []
        return " ".join(parts) + (f": {self.note}" if self.note else "")


def verdict(*intervals: tuple[float, float]) -> str:
    """Return what paired intervals of the gains in accuracy and likelihood, in this order, say together.

    BETTER where one lies above 0 and none below; WORSE where that of accuracy lies below 0, or the other does and that
    of accuracy does not lie above 0; else NO_DIFFERENCE.
    """
    if intervals and intervals[0][1] < 0:
        return WORSE
    gained, lost = any(low > 0 for low, _ in intervals), any(high < 0 for _, high in intervals)
    if gained == lost:
        return NO_DIFFERENCE
    return BETTER if gained else WORSE


_SAID = {BETTER: "significant gain", WORSE: "significantly worse", NO_DIFFERENCE: "no significant gain"}


def training_outcome(row: Gain) -> str:
    """Return in words whether a finetuning gained, and whether its weights were kept.

    They are kept from a gain of one standard error on, if accuracy and likelihood are both no lower, see
    `choice.better`: that needs less than significance.
    """
    if not row.kept:
        lower = " in one of accuracy and likelihood, but the other is lower" if row.verdict == BETTER else ""
        return f"{_SAID[row.verdict]}{lower}; reverted to the linear classifier"
    if row.verdict == BETTER:
        return f"{_SAID[BETTER]}: kept"
    return "gain of more than one standard error, not significant at 95 %: kept"


def compared(trick: str, without, with_it, labels, **fields) -> Gain:
    """The row of a trick from the probabilities (n, classes) of the same images without and with it.

    Its note says what its intervals say, and `kept` follows them, where they are not among the fields.
    """
    return gain_over(trick, [without], with_it, labels, **fields)


def gain_over(trick: str, others, found, labels, *, level: float = 0.95, **fields) -> Gain:
    """`compared` to the average over several classifiers' probabilities `others`, with intervals of that level."""
    before = [np.mean(each, 0) for each in zip(*(_right_and_nats(p, labels) for p in others), strict=True)]
    after = _right_and_nats(found, labels)
    (gain, interval), (nats, nats_interval) = (
        paired_bootstrap(b - a, level=level) for a, b in zip(before, after, strict=True)
    )
    row = Gain(trick, float(after[0].mean()), gain, interval, nats, nats_interval, **fields)
    if "kept" in fields:
        return row
    if len(labels) < TELLING:
        return replace(row, kept=False, note=row.note or f"{len(labels)} images could not tell: off")
    kept = row.verdict == BETTER
    return replace(row, kept=kept, note=row.note or f"{_SAID[row.verdict]}: {'on' if kept else 'off'}")


def paired_bootstrap(differences: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, tuple[float, float]]:
    """The mean of paired differences (n,) and its percentile interval over resampled images (Efron 1979); of 10,000
    and more the normal one, mean ± z σ / √n, which the percentiles tend to: it costs nothing, draws would take seconds.
    """
    n, mean = len(differences), float(differences.mean())
    if n >= _MANY:
        reach = NormalDist().inv_cdf((1 + level) / 2) * float(differences.std()) / math.sqrt(n)
        return mean, (mean - reach, mean + reach)
    random = np.random.default_rng(seed)
    means = np.array([differences[random.integers(0, n, n)].mean() for _ in range(_DRAWS)])
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return mean, (float(low), float(high))


def _right_and_nats(probabilities: np.ndarray, labels) -> tuple[np.ndarray, np.ndarray]:
    """Per image: 1 where the most probable class is right, and the log-likelihood of the true class."""
    p = np.asarray(probabilities, np.float64)
    return (p.argmax(1) == labels).astype(float), np.log(np.maximum(p[np.arange(len(p)), labels], 1e-12))


def table(rows: Sequence[Gain]) -> str:
    """The ledger as aligned text; nothing of nothing."""
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
