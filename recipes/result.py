"""What `finetune` returns: the model, how it came about, and everything one does with it."""

from dataclasses import dataclass, field

import keras
import numpy as np

import augment
from recipes.audit import Audit
from recipes.data import ImageData
from recipes.evaluation import Evaluation
from recipes.plan import Recipe


@dataclass(frozen=True)
class Prediction:
    """One image's most probable class, its probability, and the probabilities of all classes in their order."""

    class_name: str
    probability: float
    probabilities: np.ndarray = field(repr=False)


@dataclass(eq=False)
class Result:
    """A finetuned classifier with its history. `print(result)` tells what was done and what came out.

    model:       (batch, height, width, 3) of 0..255 RGB, uint8 or float → (batch, classes) probabilities.
    class_names: in the order of the probabilities.
    history:     one list per metric, one value per epoch; empty where nothing was trained by gradient steps.
    recipe:      what was done and why.
    validation:  on the images that also chose the epoch and the recipe; `test` on the dataset's own test split.
    seconds:     wall-clock time by phase.
    """

    model: keras.Model
    class_names: list[str]
    recipe: Recipe
    history: dict[str, list[float]]
    audit: Audit
    backbone: str
    probe: object = None
    validation: Evaluation | None = None
    test: Evaluation | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    ledger: tuple = ()

    @property
    def _policy(self) -> augment.Policy:
        return self.recipe.evaluation_policy

    def probabilities(self, data: ImageData) -> np.ndarray:
        """(n, classes) probabilities of `data`, in its order."""
        batches = evaluation_batches(data, self._policy, self.recipe.batch_size).map(lambda images, label: images)
        return self.model.predict(batches, verbose=0)

    def predict(self, images, *, crops: int = 1, samples: int = 0, abstain: float | None = None) -> list[Prediction]:
        """Class names and probabilities of images: paths, a folder, encoded bytes, or one array of 0..255 RGB.

        Raises: DataError naming the file that cannot be read or decoded.
        """
        self._only_basic(crops=crops != 1, samples=samples != 0, abstain=abstain is not None)
        data = _unlabelled(images)
        rows = self.probabilities(data) if len(data) else []
        return [Prediction(self.class_names[row.argmax()], float(row.max()), row) for row in rows]
