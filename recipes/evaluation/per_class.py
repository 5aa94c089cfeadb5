"""Compute the quality of a classifier for each class."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from rich.table import Table
from rich.text import Text

from recipes.core.output import printable
from recipes.core.text import described, percent, short
from recipes.evaluation.intervals import wilson_interval

MOST_SHOWN = 30  # largest number of classes in a table, a figure or a card


@dataclass(frozen=True)
class ClassScore:
    """The quality of a classifier on the images of one class. Shares with the denominator 0 are None.

    Attributes:
        class_name: Name of the class.
        images: Number of images of the class.
        correct: Number of these images that were classified as this class.
        accuracy: correct / images, also called recall.
        low: Lower end of the 95 % Wilson score interval of the accuracy.
        high: Upper end of that interval.
        precision: Share of the images classified as this class that belong to it.
        f1: Harmonic mean of accuracy and precision.
        confused_with: The most frequent wrong class of the images; None without mistakes.
        confused: Number of images that were classified as `confused_with`.
    """

    class_name: str
    images: int
    correct: int
    accuracy: float | None
    low: float
    high: float
    precision: float | None
    f1: float | None
    confused_with: str | None
    confused: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return self.low, self.high

    def __repr__(self) -> str:
        accuracy = None if self.accuracy is None else percent(self.accuracy, self.interval)
        return described("ClassScore", repr(self.class_name), f"{self.correct} of {self.images} images", accuracy)

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of a table row after the name: images, accuracy, interval, precision, F1 and confusion."""
        shares = ["" if value is None else percent(value) for value in (self.accuracy, self.precision)]
        interval = f"{100 * self.low:.1f} to {100 * self.high:.1f}" if self.images else ""
        f1 = "" if self.f1 is None else f"{self.f1:.3f}"
        confused = f"{short(self.confused_with, 40)} ({self.confused})" if self.confused_with is not None else ""
        return str(self.images), shares[0], interval, shares[1], f1, printable(confused)


CSV_HEADER = tuple(field.name for field in fields(ClassScore))
HEADER = ("class", "images", "accuracy", "95 % interval", "precision", "F1", "most often confused with")


def class_scores(confusion: Sequence[Sequence[int]], class_names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Return the score of each class.

    Args:
        confusion: `confusion[i][j]` images of class i were classified as class j.
        class_names: The names of the classes.
    """
    matrix = np.array(confusion)
    wrong = matrix - np.diag(np.diag(matrix))
    images, taken, right = (counts.tolist() for counts in (matrix.sum(1), matrix.sum(0), np.diag(matrix)))
    others: list[int] = wrong.argmax(1).tolist()
    most: list[int] = wrong.max(1).tolist()
    return tuple(
        ClassScore(
            name, images[i], right[i], _share(right[i], images[i]), *wilson_interval(right[i], images[i]),
            precision=_share(right[i], taken[i]), f1=_share(2 * right[i], images[i] + taken[i]),
            confused_with=class_names[others[i]] if most[i] else None, confused=most[i],
        )
        for i, name in enumerate(class_names)
    )  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def worst(scores: Sequence[ClassScore], most: int = MOST_SHOWN) -> list[int]:
    """Return the positions of at most `most` classes with the lowest accuracies, in the order of the classes."""
    ranked = sorted(range(len(scores)), key=lambda i: 2.0 if (share := scores[i].accuracy) is None else share)
    return sorted(ranked[:most])


def left_out(scores: Sequence[ClassScore], most: int = MOST_SHOWN) -> str:
    """Return a note about the classes that are not among the `worst`; empty without such classes."""
    rest = len(scores) - most
    return f"the {most} classes with the lowest accuracies; {rest:,} others are omitted" if rest > 0 else ""


def class_table(scores: Sequence[ClassScore], most: int = MOST_SHOWN) -> Table:
    """Return a text table of the classes with the lowest accuracies, in the order of the classes."""
    shown = Table(*HEADER, caption=left_out(scores, most) or None)
    for i in worst(scores, most):
        shown.add_row(Text(printable(short(scores[i].class_name, 40))), *map(Text, scores[i].cells))
    return shown


def class_rows(scores: Sequence[ClassScore]) -> list[tuple]:
    """Return the rows of a CSV file with `CSV_HEADER`."""
    return [astuple(score) for score in scores]
