"""The lecture's 2×2 table as a pure function: how much data × how similar to ImageNet → what to train."""

from dataclasses import dataclass, field, replace

import augment

TABLE = """
                   similar to ImageNet                   different from ImageNet
little data        linear classifier on top features     linear classifier on the best stage, then a few stages
a lot of data      finetune a few stages                 finetune all stages
""".strip("\n")


class RecipeError(ValueError):
    """The recipe does not exist or contradicts itself."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, and why. Change a field with `dataclasses.replace`.

    name:            "probe" | "few" | "all" | "scratch".
    size:            side of the square input in pixels.
    unfreeze:        how many of the backbone's stages are trained, counted from the output; -1 is all of them.
    epochs:          passes over the training images; the best one by validation loss is kept.
    batch_size:      images per update.
    learning_rate:   peak, of the head and the deepest stage.
    stage_decay:     factor on the learning rate from each stage to the shallower one before it.
    weight_decay:    decoupled, as a fraction of the weights per update at learning rate 1.
    label_smoothing: probability mass spread over all classes.
    dropout:         rate before the linear classifier.
    patience:        epochs without a better validation loss before training stops.
    warm_start:      begin with the linear classifier that is optimal on the frozen features.
    policy:          training augmentation.
    reasons:         one sentence per decision.
    """

    name: str
    size: int
    unfreeze: int
    epochs: int
    policy: augment.Policy
    batch_size: int = 32
    learning_rate: float = 1e-3
    stage_decay: float = 1.0
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    dropout: float = 0.0
    patience: int = 10
    warm_start: bool = True
    reasons: tuple[str, ...] = field(default=())

    def __post_init__(self):
        positive = {"size": self.size, "batch_size": self.batch_size, "learning_rate": self.learning_rate}
        for name, value in positive.items():
            if not value > 0:
                raise RecipeError(f"Recipe.{name} is {value}; expected a positive number")
        if self.epochs < 0 or self.unfreeze < -1:
            raise RecipeError(
                f"Recipe.epochs is {self.epochs} and unfreeze {self.unfreeze}; expected at least 0 and -1"
            )
        if self.policy.size != self.size:
            raise RecipeError(
                f"Recipe.size is {self.size}, but its policy crops {self.policy.size}; replace both: "
                f"replace(recipe, size={self.size}, policy=replace(recipe.policy, size={self.size}))"
            )

    @property
    def evaluation_policy(self) -> augment.Policy:
        """The plain centre crop at the recipe's size."""
        return augment.Policy.none(self.size)

    def because(self, *reasons: str) -> "Recipe":
        return replace(self, reasons=(*self.reasons, *reasons))


def natural_size(backbone, data) -> int:
    """The image size to train at: the backbone's own, or less where most images are smaller than that.

    Enlarging a photo beyond its pixels adds cost and no information; sizes are multiples of 32, at least 96 for
    photographs of at least that size, and never another than the only one that a network takes.
    """
    if backbone.fixed_size:
        return backbone.fixed_size
    typical = typical_side(data)
    return int(min(backbone.size, max(96, 32 * round(typical / 32))))


def typical_side(data, sample: int = 64) -> float:
    """Median short side in pixels of up to `sample` images spread over the dataset."""
    import numpy as np

    if data.in_memory_pixels:
        return float(min(data.images.shape[1:3]))
    chosen = np.linspace(0, len(data) - 1, min(sample, len(data))).astype(int)
    return float(np.median([min(augment.decode(data.encoded(i)).shape[:2]) for i in chosen]))
