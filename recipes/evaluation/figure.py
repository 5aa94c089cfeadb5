"""Draw an evaluation: the accuracy of each class with its interval, beside the confusion matrix."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recipes.core.output import printable
from recipes.core.text import short
from recipes.evaluation.per_class import ClassScore, left_out, worst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBERED = 12  # largest number of classes at which each cell of the matrix shows its number


def figure(scores: Sequence[ClassScore], confusion: Sequence[Sequence[int]], accuracy: float) -> "Figure":
    """Return a matplotlib Figure of the classes with the lowest accuracies.

    Args:
        scores: The score of each class.
        confusion: `confusion[i][j]` images of class i were classified as class j.
        accuracy: The accuracy on all images, which is drawn as a line.
    """
    from matplotlib.figure import Figure

    shown = worst(scores)
    names = [_plain(scores[i].class_name) for i in shown]
    side = 2.2 + 0.24 * len(shown)
    drawn = Figure(figsize=(5.5 + side, side), layout="constrained")
    points, matrix = drawn.subplots(1, 2, width_ratios=(4, side))
    _draw_accuracies(points, [scores[i] for i in shown], names, accuracy)
    _draw_matrix(matrix, np.array(confusion)[np.ix_(shown, shown)], [scores[i].images for i in shown], names)
    if note := left_out(scores):
        drawn.suptitle(note, fontsize=10)
    return drawn


def _plain(name: str) -> str:
    """Return a shortened name without characters that matplotlib reads as a formula."""
    return printable(short(" ".join(name.split()), 24)).replace("$", r"\$")


def _draw_accuracies(axes: "Axes", scores: Sequence[ClassScore], names: Sequence[str], accuracy: float) -> None:
    axes.axvline(100 * accuracy, color="tab:gray", linestyle="--", linewidth=1, label=f"all images: {accuracy:.1%}")
    for row, score in enumerate(scores):
        if score.accuracy is not None:
            axes.plot((100 * score.low, 100 * score.high), (row, row), color="tab:blue", linewidth=2)
            axes.plot(100 * score.accuracy, row, "o", color="tab:blue", markersize=5)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(-2, 102), ylim=(len(names) - 0.5, -0.5), xlabel="accuracy, % (95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderpad=0)


def _draw_matrix(axes: "Axes", matrix: np.ndarray, images: Sequence[int], names: Sequence[str]) -> None:
    """Draw the confusion matrix, with each row as shares of the images of its class."""
    shares = matrix / np.maximum(1, images)[:, None]
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(names) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            axes.text(column, row, str(count), ha="center", va="center", fontsize=9,
                      color="white" if shares[row, column] > 0.5 else "black")  # fmt: skip
