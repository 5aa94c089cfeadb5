"""A recipe: everything that decides a training, as a frozen dataclass, and the four ready-made ones."""

import math
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real

import numpy as np

import augment
from recipes.errors import RecipeError

NAMES = ("probe", "few", "all", "scratch")
CROPS = (1, 5, 10)
FEWEST_EPOCHS, MOST_EPOCHS = 12, 40
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
    learning_rate:   peak, of the head and the deepest stage. The default, 0.001, peaks lower in a training from the
                     linear classifier of fewer than 100 updates; others are taken as they are, see `schedule.peak`.
    layer_decay:     factor on the learning rate from each stage to the one before it.
    weight_decay:    decoupled, as a fraction of the weights per update at learning rate 1.
    label_smoothing: probability mass spread over all classes.
    dropout:         rate before the linear classifier; off unless it is asked for.
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
    crops, scales:   of `Result.evaluate(crops="auto")`. 1 and None: the cheapest that gain on the validation images
                     beyond their noise; others stay as they are.
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
        if self.name not in NAMES:
            raise RecipeError(f"Recipe.name is {self.name!r}; expected one of {NAMES}")
        if not isinstance(self.policy, augment.Policy):
            raise RecipeError(f"Recipe.policy is a {type(self.policy).__name__}; expected an augment.Policy")
        self._make_plain()
        self._check_numbers()
        if not self.warm_start and not self.epochs:
            raise RecipeError("Recipe.epochs is 0 and its weights are random: nothing would be learned; set epochs")
        if self.policy.size != self.size:
            raise RecipeError(
                f"Recipe.size is {self.size}, but its policy crops {self.policy.size}; replace both: "
                f"replace(recipe, size={self.size}, policy=replace(recipe.policy, size={self.size}))"
            )

    def _make_plain(self):
        """Python's own numbers and tuples, whatever numbers and sequences they came as."""
        for name in _WHOLE:
            value = getattr(self, name)
            if name != "test_size" or value is not None:
                object.__setattr__(self, name, _whole(name, value))
        for name in _REAL:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise RecipeError(f"Recipe.{name} is {value!r}; expected a finite number")
            object.__setattr__(self, name, float(value))
        for name in _SWITCHES:
            value = getattr(self, name)
            if not (isinstance(value, bool | np.bool_) or (name == "mirror" and value is None)):
                expected = "True, False or None" if name == "mirror" else "True or False"
                raise RecipeError(f"Recipe.{name} is {value!r}; expected {expected}")
            object.__setattr__(self, name, value if value is None else bool(value))
        for name in ("taps", "scales"):
            object.__setattr__(self, name, _several(name, getattr(self, name)))

    def _check_numbers(self):
        for name in ("size", "test_size", "batch_size", "accumulate", "learning_rate", "layer_decay"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise RecipeError(f"Recipe.{name} is {value}; expected a positive number")
        for name, least in (("epochs", 0), ("unfreeze", -1), ("patience", 0), ("weight_decay", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"Recipe.{name} is {getattr(self, name)}; expected at least {least}")
        for name in ("label_smoothing", "dropout", "stochastic_depth", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"Recipe.{name} is {getattr(self, name)}; expected a number in [0, 1)")
        if not 0 <= self.snapshots <= max(1, self.epochs):
            raise RecipeError(f"Recipe.snapshots is {self.snapshots}; expected 0 to epochs = {self.epochs}")
        if self.crops not in CROPS:
            raise RecipeError(f"Recipe.crops is {self.crops}; expected one of {CROPS}")
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
    def asks_for_crops(self) -> bool:
        """Whether `crops` and `scales` are to stay as they are."""
        return self.crops != 1 or self.scales is not None

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


_WHOLE = ("size", "test_size", "epochs", "unfreeze", "batch_size", "accumulate", "patience", "snapshots", "crops")
_REAL = ("learning_rate", "layer_decay", "weight_decay", "label_smoothing", "dropout", "stochastic_depth", "averaging")
_SWITCHES = ("warm_start", "interpolate", "balanced", "mirror", "calibrate", "refit")
_LEAST = {"taps": 0, "scales": 1}


def _whole(name: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RecipeError(f"Recipe.{name} is {value!r}; expected a whole number")
    return int(value)


def _several(name: str, values) -> tuple[int, ...] | None:
    """Different whole numbers."""
    if values is None:
        return None
    if not isinstance(values, tuple | list) or not values:
        raise RecipeError(f"Recipe.{name} is {values!r}; expected whole numbers such as (1, 2), or None")
    values, least = tuple(_whole(name, value) for value in values), _LEAST[name]
    if min(values) < least or len(set(values)) < len(values):
        raise RecipeError(f"Recipe.{name} is {values}; expected different numbers of at least {least}")
    return values


@dataclass(frozen=True)
class Adjusted:
    """A recipe by name with some fields replaced as soon as the data has decided the others; see `adjusted`."""

    recipe: str
    changes: tuple[tuple[str, object], ...]


def adjusted(recipe: str = "auto", **changes) -> Adjusted:
    """`finetune(recipe=adjusted("all", epochs=3))`: the named recipe with these fields of Recipe replaced.

    size and policy belong together: of one alone the other follows.

    Raises: RecipeError for another name, a field that Recipe does not have, and a value that it cannot have.
    """
    if recipe not in ("auto", *NAMES):
        raise RecipeError(f"recipe is {recipe!r}; expected one of {('auto', *NAMES)}")
    known = {field.name for field in fields(Recipe)} - {"name", "reasons", "warm_start"}
    if set(changes) - known:
        raise RecipeError(f"Recipe has no fields {sorted(set(changes) - known)} to adjust; it has {sorted(known)}")
    if isinstance(changes.get("policy"), augment.Policy):
        changes.setdefault("size", changes["policy"].size)
    size = changes.get("size", 224)
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise RecipeError(f"size is {size!r}; expected a positive number of pixels")
    ready = {"probe": linear_probe, "scratch": from_scratch}.get(recipe, finetune_all)(int(size))
    changed(ready, {name: value for name, value in changes.items() if name != "snapshots"})
    if _whole("snapshots", changes.get("snapshots", 0)) < 0:
        raise RecipeError(f"Recipe.snapshots is {changes['snapshots']}; expected at least 0")
    return Adjusted(recipe, tuple(changes.items()))


def changed(recipe: Recipe, changes: dict) -> Recipe:
    """`recipe` with these fields replaced, its policy resized where only the size is."""
    size = changes.get("size", recipe.size)
    return replace(recipe, **{"policy": recipe.policy.resized(size), **changes})


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
    return int(min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(shown_in_all(size) / images))))


def shown_in_all(size: int) -> int:
    """Images that a training is to see."""
    return round(10_000 * max(1.0, (128 / size) ** 2))
