"""Compare two runs image by image on the same photos."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from recipes.core.output import safe_output
from recipes.core.text import counted, described, percent
from recipes.errors import RecipeError
from recipes.evaluation.ledger import BETTER, NO_DIFFERENCE, Gain, compared
from recipes.evaluation.metrics import Evaluation, score
from recipes.result import Result, load


@dataclass(frozen=True, eq=False)
class Comparison:
    """Hold the comparison of two classifiers on the same labelled images.

    Attributes:
        first: Accuracy of the first run.
        second: Accuracy of the second run.
        gain: Gain of the second run over the first, with 95 % intervals of the paired difference.
        only_first: Number of images that only the first run classifies correctly.
        only_second: Number of images that only the second run classifies correctly.
    """

    first: Evaluation
    second: Evaluation
    gain: Gain
    only_first: int
    only_second: int

    @property
    def verdict(self) -> str:
        """Return the result in one sentence."""
        assert self.gain.gain is not None and self.gain.interval is not None  # both runs were evaluated
        if not self.only_first and not self.only_second and not self.gain.nats:
            return f"no difference: both runs predict the same for all {counted(self.first.n, 'image')}"
        low, high = (100 * end for end in self.gain.interval)
        points = f"{100 * self.gain.gain:+.1f} points ({low:+.1f} to {high:+.1f})"
        points += f", log-likelihood {self.gain.nats:+.3f} nats per image"
        words = "no significant difference" if self.gain.verdict == NO_DIFFERENCE else "the first run is better"
        words = "the second run is better" if self.gain.verdict == BETTER else words
        return f"{words}: {points} on {counted(self.first.n, 'image')}"

    def __repr__(self) -> str:
        return described("Comparison", self.verdict)

    def __str__(self) -> str:
        runs = (("first: ", self.first, self.only_first), ("second:", self.second, self.only_second))
        lines = [
            f"{name} {percent(each.accuracy, each.interval)}, {counted(only, 'image')} that the other run misclassifies"
            for name, each, only in runs
        ]
        return "\n".join([self.verdict, *lines])


@safe_output()
def compare(
    first: Result | str | os.PathLike, second: Result | str | os.PathLike, dataset: object = None
) -> Comparison:
    """Compare two runs of the same classes on the same labelled images.

    The difference is computed image by image, and its 95 % interval comes from a paired bootstrap (Efron 1979). This
    interval is much narrower than those of the two accuracies, because both runs classify the same images.

    Args:
        first: A Result, or the folder of a run.
        second: Another Result or folder.
        dataset: Labelled images that neither run was trained on, in any form that `finetune` takes; None uses the
            held-out images, if they are the same for both runs.

    Raises:
        RecipeError: If the classes of the runs differ, or no dataset is given and their held-out images differ.
        DataError: If the dataset cannot be used.

    Example:
        >>> print(recipes.compare("run-1", "run-2", "test_photos/"))
    """
    runs = [each if isinstance(each, Result) else load(each) for each in (first, second)]
    names = runs[0].class_names
    if sorted(names) != sorted(runs[1].class_names):
        raise RecipeError(
            f"the classes of the runs differ ({names[:5]} and {runs[1].class_names[:5]}); compare runs of the same "
            f"classes",
            code="compare.classes",
        )
    if dataset is None:
        labels, probabilities = _held_out(runs)
    else:
        images = runs[0].evaluable(dataset)
        runs[1].evaluable(dataset)  # warns if the second run was trained on these images
        labels, probabilities = images.labels, [run.probabilities(images) for run in runs]
    order = [runs[1].class_names.index(name) for name in names]
    before, after = probabilities[0], probabilities[1][:, order]
    right = [p.argmax(1) == labels for p in (before, after)]
    return Comparison(
        score(before, labels, names), score(after, labels, names), compared("the second run", before, after, labels),
        only_first=int((right[0] & ~right[1]).sum()), only_second=int((right[1] & ~right[0]).sum()),
    )  # fmt: skip


def _held_out(runs: list[Result]) -> tuple[np.ndarray, list[Any]]:
    """Return labels and predictions of the images that both runs held out.

    Raises:
        RecipeError: If the held-out images of the runs differ.
    """
    prints = [run.audit.fingerprints.get("validation", ()) for run in runs]
    judged = [run.judged for run in runs]
    if judged[0] is None or judged[1] is None or prints[0] != prints[1] or len(prints[0]) != len(judged[0].labels):
        raise RecipeError(
            "the held-out images of the runs differ, for example because of other seeds; give a dataset that neither "
            "run was trained on",
            code="compare.other_images",
        )
    if list(runs[0].class_names) != list(runs[1].class_names):
        raise RecipeError(
            "the runs order their classes differently; give a dataset, such as a folder of class folders",
            code="compare.order",
        )
    return judged[0].labels, [each.probabilities for each in judged if each]
