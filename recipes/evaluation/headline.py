"""Choose the headline accuracy of a run."""

from dataclasses import dataclass

from recipes.core.text import counted, percent
from recipes.evaluation.metrics import Evaluation
from recipes.evaluation.selection import Selection


@dataclass(frozen=True)
class Headline:
    """The headline accuracy of a run, without bias from images used for training or model selection.

    Attributes:
        accuracy: The accuracy.
        interval: 95 % interval of the accuracy.
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

    The headline is the accuracy on the test images, because they influenced no decision. Without test images it is the
    accuracy on the validation images. If the validation images also selected among several candidates, their accuracy
    would be optimistic, so the nested cross-validation of the selection replaces it.

    Args:
        test: The quality on the dataset's own test split.
        validation: The quality on the validation images.
        selection: The accuracy on the validation images, corrected for the selection.
    """
    if test is not None:
        return Headline(test.accuracy, test.interval, test.n)
    if validation is None:
        return None
    chosen = selection or validation
    return Headline(chosen.accuracy, chosen.interval, validation.n)
