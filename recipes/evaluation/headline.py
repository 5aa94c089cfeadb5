"""The one accuracy that a run stands for."""

from dataclasses import dataclass

from recipes.core.text import counted, percent
from recipes.evaluation.metrics import Evaluation
from recipes.evaluation.selection import Selection


@dataclass(frozen=True)
class Headline:
    """The one accuracy that a run stands for, on images that it was neither trained on nor chosen by.

    Attributes:
        accuracy: The accuracy.
        interval: Its 95 % interval.
        images: Number of images.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int

    def __str__(self) -> str:
        return f"{percent(self.accuracy, self.interval)} on {counted(self.images, 'held-out image')}"


def headline(
    test: Evaluation | None, validation: Evaluation | None, selection: Selection | None = None
) -> Headline | None:
    """Return the headline of a run; None if no images were held out.

    The test images come first, because they decided nothing. Without them it is the accuracy on the validation images.
    Where these also selected among several candidates, that would be optimistic, so the nested cross-validation of the
    selection replaces it.

    Args:
        test: The quality on the dataset's own test split.
        validation: The quality on the validation images.
        selection: The accuracy on the same images, corrected for the choices that they made.
    """
    if test is not None:
        return Headline(test.accuracy, test.interval, test.n)
    if validation is None:
        return None
    chosen = selection or validation
    return Headline(chosen.accuracy, chosen.interval, validation.n)
