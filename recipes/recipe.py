"""A recipe: everything that decides a training, as a frozen dataclass, and the four ready-made ones."""

from dataclasses import dataclass, field, fields, replace

import numpy as np

import augment
from recipes.errors import RecipeError

TEST_SIZES = (1.125, 1.25)  # × the training crops' side


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, and why. Change a field with `dataclasses.replace`.

    name:            "probe" | "few" | "all" | "scratch".
    size:            side of the training crops in pixels.
    test_size:       side of the images that the classifier is made for; None: the largest of size and `TEST_SIZES` ×
                     size whose validation loss is within one standard error of the lowest, where the network takes
                     several sizes and the training crops are of random area: such crops show things larger than whole
                     images do (Touvron et al., FixRes, 2019).
    unfreeze:        how many of the backbone's stages are trained, counted from the output; -1 is all of them.
    epochs:          passes over the training images; the best one by validation loss is kept.
    policy:          training augmentation.
    taps:            positions of the stages (0 is the shallowest) whose pooled features are classified, concatenated;
                     None is the network's own end.
    batch_size:      images per update.
    accumulate:      parts that a batch is computed in, where it does not fit the memory; a divisor of batch_size.
    learning_rate:   peak, of the head and the deepest stage.
    layer_decay:     factor on the learning rate from each stage to the one before it.
    weight_decay:    decoupled, as a fraction of the weights per update at learning rate 1.
    label_smoothing: probability mass spread over all classes.
    dropout:         rate before the linear classifier.
    stochastic_depth: rate of the deepest residual branch, growing linearly from 0 at the shallowest.
    averaging:       decay of the Polyak average of the weights, which is what is evaluated and kept; 0 is off.
    patience:        epochs without a better validation loss before training stops.
    warm_start:      begin with the backbone's weights and the linear classifier that is optimal on them; False: all
                     weights are drawn anew, whatever the backbone carries.
    interpolate:     the weights kept may lie between the linear classifier's and the finetuned ones (WiSE-FT), where
                     that is better on the validation images by more than the noise.
    balanced:        every class counts alike, however few images it has (logit adjustment); False: every image does.
    mirror:          predictions are means over the image and its mirror image; None: where that gains likelihood on
                     held-out images beyond its noise, and mirror images keep their class.
    calibrate:       divide the logits by the temperature of the highest likelihood of the validation images.
    snapshots:       cycles of the learning rate, see `cycle_ends`; the predictions at the ends of the last ones, as
                     many as the validation images want, are averaged. 0 or 1: one cycle, one model.
    crops, scales:   of `Result.evaluate(crops="auto")`: the cheapest that gain on the validation images beyond their
                     noise.
    refit:           after all choices, a validation part that was split off the training images joins them, and the
                     training is done once more.
    reasons:         one sentence per decision.
    """

    name: str
    size: int
    unfreeze: int
    epochs: int
    policy: augment.Policy
    test_size: int | None = None
    taps: tuple[int, ...] | None = None
    batch_size: int = 32
    accumulate: int = 1
    learning_rate: float = 1e-3
    layer_decay: float = 1.0
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    averaging: float = 0.0
    patience: int = 10
    warm_start: bool = True
    interpolate: bool = True
    balanced: bool = False
    mirror: bool | None = None
    calibrate: bool = True
    snapshots: int = 0
    crops: int = 1
    scales: tuple[int, ...] | None = None
    refit: bool = True
    reasons: tuple[str, ...] = field(default=())

    def __post_init__(self):
        for name in ("size", "test_size", "epochs", "unfreeze", "batch_size", "accumulate", "patience", "snapshots"):
            value = getattr(self, name)
            if name == "test_size" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise RecipeError(f"Recipe.{name} is {value!r}; expected a whole number")
            object.__setattr__(self, name, int(value))
        if self.taps is not None:
            object.__setattr__(self, "taps", tuple(int(tap) for tap in self.taps))
        self._check_numbers()
        if not self.warm_start and not self.epochs:
            raise RecipeError("Recipe.epochs is 0 and its weights are random: nothing would be learned; set epochs")
        if self.policy.size != self.size:
            raise RecipeError(
                f"Recipe.size is {self.size}, but its policy crops {self.policy.size}; replace both: "
                f"replace(recipe, size={self.size}, policy=replace(recipe.policy, size={self.size}))"
            )

    def _check_numbers(self):
        for name in ("size", "test_size", "batch_size", "accumulate", "learning_rate", "layer_decay"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"Recipe.{name} is {value}; expected a positive number")
        for name in ("label_smoothing", "dropout", "stochastic_depth", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"Recipe.{name} is {getattr(self, name)}; expected a number in [0, 1)")
        if not 0 <= self.snapshots <= max(1, self.epochs):
            raise RecipeError(f"Recipe.snapshots is {self.snapshots}; expected 0 to epochs = {self.epochs}")
        if self.epochs < 0 or self.unfreeze < -1:
            raise RecipeError(
                f"Recipe.epochs is {self.epochs} and unfreeze {self.unfreeze}; expected at least 0 and -1"
            )
        if self.batch_size % self.accumulate:
            raise RecipeError(
                f"Recipe.accumulate is {self.accumulate}; expected a divisor of batch_size {self.batch_size}"
            )

    @property
    def evaluation_policy(self) -> augment.Policy:
        """The plain centre crop at the size that the classifier is made for."""
        return augment.Policy.none(self.test_size or self.size)

    @property
    def noise_policy(self) -> augment.Policy:
        """The draws of the training, fit for test images: no mixing; `Policy.light` where there were none."""
        return replace(self.policy, mixup=0.0, cutmix=0.0) if self.epochs else augment.Policy.light(self.size)

    @property
    def cycle_ends(self) -> tuple[int, ...]:
        """Epochs after which a cycle of the learning rate ends, a snapshot each: the others share a third of the
        epochs, an epoch each at least, and the first takes the rest (Garipov et al. 2018)."""
        period = max(1, self.epochs // (3 * max(1, self.snapshots - 1)))
        return tuple(self.epochs - i * period for i in reversed(range(max(1, self.snapshots))))

    def __str__(self) -> str:
        lines = [f"recipe {self.name!r}: {self.size} px, " + self._training, *(f"  because {r}" for r in self.reasons)]
        return "\n".join(lines)

    @property
    def _training(self) -> str:
        if not self.epochs:
            return "linear classifier on the frozen network"
        stages = {0: "no stage", -1: "all stages"}.get(self.unfreeze, f"the {self.unfreeze} deepest stages")
        start = "from the linear classifier" if self.warm_start else "from random weights"
        return f"{stages} trained {start}, up to {self.epochs} epochs at learning rate {self.learning_rate:g}"

    def because(self, *reasons: str) -> "Recipe":
        return replace(self, reasons=(*self.reasons, *reasons))


@dataclass(frozen=True)
class Adjusted:
    """A recipe by name with some fields replaced as soon as the data has decided the others; see `adjusted`."""

    recipe: str
    changes: tuple[tuple[str, object], ...]


def adjusted(recipe: str = "auto", **changes) -> Adjusted:
    """`finetune(recipe=adjusted("all", epochs=3))`: the named recipe with these fields of Recipe replaced.

    Raises: RecipeError for a field that Recipe does not have.
    """
    known = {field.name for field in fields(Recipe)} - {"name", "reasons", "warm_start"}
    size = changes.get("size", 1)
    if not isinstance(size, int | np.integer) or size < 1:
        raise RecipeError(f"size is {size!r}; expected a positive number of pixels")
    if set(changes) - known:
        raise RecipeError(f"Recipe has no fields {sorted(set(changes) - known)} to adjust; it has {sorted(known)}")
    return Adjusted(recipe, tuple(changes.items()))


def linear_probe(size: int = 224) -> Recipe:
    """Only the linear classifier, solved to its optimum on frozen features: for little data similar to ImageNet."""
    return Recipe("probe", size, unfreeze=0, epochs=0, policy=augment.Policy.none(size))


def finetune_few(size: int = 224, images: int = 1000) -> Recipe:
    """The linear classifier, then it and the two deepest stages together."""
    return _finetuned("few", 2, size, images, patience=5, layer_decay=0.5)


def finetune_all(size: int = 224, images: int = 1000) -> Recipe:
    """The linear classifier, then it and all stages together."""
    return _finetuned("all", -1, size, images, patience=budget(size, images) // 2, layer_decay=0.7)


def from_scratch(size: int = 224, images: int = 1000) -> Recipe:
    """All weights from a random start: what the data alone can teach, and the baseline of the others."""
    epochs = 2 * budget(size, images)
    return Recipe(
        "scratch", size, unfreeze=-1, epochs=epochs, policy=augment.Policy.light(size), warm_start=False,
        patience=epochs, refit=False,
    )  # fmt: skip


def _finetuned(name: str, unfreeze: int, size: int, images: int, **fields) -> Recipe:
    return Recipe(name, size, unfreeze, budget(size, images), augment.Policy.light(size), averaging=0.99, **fields)


def budget(size: int, images: int) -> int:
    """Epochs such that a small dataset still gets some hundred updates and a large one is not seen without end; images
    below 128 pixels, which take less time, are seen as much more often."""
    return int(min(40, max(12, round(10_000 * max(1.0, (128 / size) ** 2) / images))))
