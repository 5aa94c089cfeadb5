"""The lecture's 2×2 table as a pure function: how much data × how similar to ImageNet → what to train."""

from dataclasses import dataclass, field, fields, replace

import numpy as np

import augment
from recipes.errors import RecipeError

TABLE = """
                   similar to ImageNet                   different from ImageNet
little data        linear classifier on top features     linear classifier on the best stage, then a few stages
a lot of data      finetune a few stages                 finetune all stages
""".strip("\n")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training, and why. Change a field with `dataclasses.replace`.

    name:            "probe" | "few" | "all" | "scratch".
    size:            side of the square input in pixels.
    unfreeze:        how many of the backbone's stages are trained, counted from the output; -1 is all of them.
    epochs:          passes over the training images; the best one by validation loss is kept.
    batch_size:      images per update.
    learning_rate:   peak, of the head and the deepest stage.
    weight_decay:    decoupled, as a fraction of the weights per update at learning rate 1.
    label_smoothing: probability mass spread over all classes.
    dropout:         rate before the linear classifier.
    patience:        epochs without a better validation loss before training stops.
    warm_start:      begin with the backbone's weights and the linear classifier that is optimal on them; False: all
                     weights are drawn anew, whatever the backbone carries.
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
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    dropout: float = 0.0
    patience: int = 10
    warm_start: bool = True
    reasons: tuple[str, ...] = field(default=())

    def __post_init__(self):
        whole = {"size": self.size, "epochs": self.epochs, "unfreeze": self.unfreeze, "batch_size": self.batch_size}
        for name, value in whole.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise RecipeError(f"Recipe.{name} is {value!r}; expected a whole number")
            object.__setattr__(self, name, int(value))
        if not self.warm_start and not self.epochs:
            raise RecipeError("Recipe.epochs is 0 and its weights are random: nothing would be learned; set epochs")
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


@dataclass(frozen=True)
class Summary:
    """What the plan needs to know of a dataset and of the network.

    images, classes: of the training part.
    size:            image size that the probe was run at, pixels.
    pretrained:      whether the backbone carries trained weights.
    """

    images: int
    classes: int
    size: int
    pretrained: bool = True

    @property
    def per_class(self) -> float:
        return self.images / self.classes


A_LOT = 200  # images per class from which finetuning has enough to learn from


def plan(summary: Summary, probe) -> Recipe:
    """The recipe that the lecture's table gives for a dataset, read off the probe.

    Little or a lot is `images per class` against 200. Similar to ImageNet is where the last stage, the one most
    specialised on ImageNet, separates the classes best and nearly fully; where an earlier stage does better, or where
    more than a tenth of the images is wrong (beyond the 95 % interval), the earlier stages have something to learn.
    """
    if not summary.pretrained:
        return from_scratch(summary.size, summary.images).because("the backbone carries no trained weights")
    last, best = probe.last, probe.best
    seen = f"a linear classifier on the frozen network reaches {last.accuracy:.1%} on its last stage"
    if best is not last:
        seen += f" and {best.accuracy:.1%} on {best.name}"
    much = f"{summary.per_class:.0f} images per class is {'a lot of' if summary.per_class >= A_LOT else 'little'} data"
    if last.interval[1] >= 0.9 and best.accuracy - last.accuracy < 0.02:
        similar = f"{seen} (cross-validated): the data is similar to ImageNet"
        if summary.per_class < A_LOT:
            return linear_probe(summary.size).because(similar, f"{much}; {MOVES_LITTLE}")
        few = finetune_few(summary.size, summary.images).because(similar, f"{much}; the deepest stages are trained")
        return _mirrored(few, probe)
    chosen = finetune_all(summary.size, summary.images).because(
        f"{seen} (cross-validated): the data differs from ImageNet", f"{much}; all stages are trained"
    )
    return _mirrored(chosen, probe)


MOVES_LITTLE = "finetuning would move little and could overfit, so the linear classifier is kept"


def linear_probe(size: int = 224) -> Recipe:
    """Only the linear classifier, solved to its optimum on frozen features: for little data similar to ImageNet."""
    return Recipe("probe", size, unfreeze=0, epochs=0, policy=augment.Policy.none(size))


def finetune_few(size: int = 224, images: int = 1000) -> Recipe:
    """The linear classifier, then it and the two deepest stages together."""
    return Recipe("few", size, unfreeze=2, epochs=budget(images), policy=augment.Policy.light(size))


def finetune_all(size: int = 224, images: int = 1000) -> Recipe:
    """The linear classifier, then it and all stages together."""
    return Recipe("all", size, unfreeze=-1, epochs=budget(images), policy=augment.Policy.light(size))


def from_scratch(size: int = 224, images: int = 1000) -> Recipe:
    """All weights from a random start: what the data alone can teach, and the baseline of the others."""
    return Recipe(
        "scratch", size, unfreeze=-1, epochs=2 * budget(images), policy=augment.Policy.light(size), warm_start=False,
        patience=2 * budget(images),
    )  # fmt: skip


def budget(images: int) -> int:
    """Epochs such that a small dataset still gets some hundred updates and a large one is not seen without end."""
    return int(min(40, max(12, round(12_000 / images))))


BY_NAME = {"few": finetune_few, "all": finetune_all, "scratch": from_scratch}


def named(recipe, summary: Summary, probe) -> Recipe:
    """The Recipe that `finetune(recipe=...)` means, for data of which `summary` and `probe` (or None) tell.

    A Recipe as it is, an Adjusted one with its changes made, "auto" by `plan`, or a ready-made one by name.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Adjusted):
        chosen, changes = named(recipe.recipe, summary, probe), dict(recipe.changes)
        if "size" in changes:
            changes.setdefault("policy", chosen.policy.resized(changes["size"]))
        shown = ", ".join(f"{name} = {value}" for name, value in recipe.changes)
        return replace(chosen, **changes).because(f"{shown}: asked for")
    if recipe == "auto":
        return plan(summary, probe)
    if recipe == "probe":
        return linear_probe(summary.size).because("asked for")
    return _mirrored(BY_NAME[recipe](summary.size, summary.images).because("asked for"), probe)


def _mirrored(recipe: Recipe, probe) -> Recipe:
    """`recipe` without mirror images where the probe found that they lose their class."""
    if probe is None or probe.mirrors.alike:
        return recipe
    right, mirrored = probe.mirrors.straight, probe.mirrors.mirrored
    reason = (
        f"a linear classifier is right on {right:.0%} of the images but on {mirrored:.0%} of their mirror images: "
        "no mirror images are drawn"
    )
    return replace(recipe, policy=replace(recipe.policy, flip=0.0)).because(reason)


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
    if data.in_memory_pixels:
        return float(min(data.images.shape[1:3]))
    chosen = np.linspace(0, len(data) - 1, min(sample, len(data))).astype(int)
    return float(np.median([min(augment.decode(data.encoded(i)).shape[:2]) for i in chosen]))
