"""Recipes: all settings of a training in a frozen dataclass."""

import math
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np

from recipes import augment
from recipes.core.text import described
from recipes.errors import RecipeError
from recipes.planning import NAMES
from recipes.planning.reason import Reason

CROPS = (1, 5, 10)
TEST_SIZES = (1.125, 1.25)  # factors on the side of the training crops


@dataclass(frozen=True)
class Recipe:
    """All settings of a training, with their reasons. Change a field with `dataclasses.replace`.

    Attributes:
        name: "probe", "few", "all" or "scratch".
        size: Side of the training crops, pixels.
        unfreeze: Number of the backbone's stages that are trained, counted from the output; -1 trains all.
        epochs: Largest number of passes over the training images. The epoch with the best validation loss is used.
        policy: Training augmentation.
        test_size: Side of the images at prediction, pixels. None chooses the largest of `size` and `TEST_SIZES` ×
            `size` whose validation loss is within one standard error of the lowest. This choice requires a network that
            accepts several sizes, and training crops of random area, because objects look larger in such crops than in
            whole images (Touvron et al., FixRes, 2019).
        taps: Positions of the stages (0 is the shallowest) whose pooled features are concatenated and classified. None
            takes the last stage of the network.
        batch_size: Images per update.
        accumulate: Number of parts in which a batch is computed to save memory; a divisor of `batch_size`.
        learning_rate: Peak learning rate of the linear classifier and the deepest stage. A training that starts from
            the linear classifier and has fewer than `schedule.ENOUGH` = 100 updates has a lower peak, see
            `schedule.peak`.
        layer_decay: Factor on the learning rate from each stage to the previous stage.
        weight_decay: Decoupled weight decay, as a fraction of the weights per update at learning rate 1.
        label_smoothing: Probability mass that is spread over all classes.
        dropout: Dropout rate before the linear classifier; 0 by default.
        stochastic_depth: Drop rate of the deepest residual branch. The rate grows linearly from 0 at the shallowest
            branch.
        averaging: Decay of the Polyak average of the weights, which is evaluated and saved; 0 turns it off.
        patience: Epochs without a better validation loss before training stops.
        warm_start: Whether to start from the weights of the backbone and the linear classifier that is optimal on its
            features. False draws all weights at random, even if the weights of the backbone are trained.
        interpolate: Whether to allow weights between the start and the finetuned ones (WiSE-FT), if they are better on
            the validation images by more than the noise.
        balanced: Whether every class gets the same weight (logit adjustment). False gives every image the same weight.
        mirror: Whether to average predictions over the image and its mirror image. None does so if mirror images keep
            their class and averaging increases the likelihood of held-out images beyond the noise.
        calibrate: Whether to divide the logits by the temperature with the highest likelihood of the validation images.
        snapshots: Number of learning-rate cycles, see `cycle_ends`. The predictions at the ends of the last cycles are
            averaged; the validation images decide the number of averaged cycles. 0 and 1 mean one cycle and one model.
        crops: Number of crops of `Result.evaluate(crops="auto")`. With 1 crop and scales None, the validation images
            choose the cheapest set with a gain beyond the noise; other values are used unchanged.
        scales: Scales of these crops, in pixels of the short side.
        refit: Whether to train again on all images after all choices, if the validation images were split off the
            training images.
        decisions: Reasons for the values of the other fields, as data; `reasons` holds the sentences.
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
    decisions: tuple[Reason, ...] = field(default=(), repr=False)  # not a part of the command of a run

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise invalid("name", self.name, f"one of {NAMES}")
        if not isinstance(self.policy, augment.Policy):
            raise invalid("policy", type(self.policy).__name__, "an augment.Policy")
        self._make_plain()
        self._check_numbers()
        if not self.warm_start and not self.epochs:
            raise invalid("epochs", 0, "at least 1, because random weights learn nothing without training")
        if self.policy.size != self.size:
            raise RecipeError(
                f"Recipe.size is {self.size}, but its policy crops {self.policy.size} pixels; replace both: "
                f"replace(recipe, size={self.size}, policy=replace(recipe.policy, size={self.size}))",
                code="recipe.policy_size", field="size", value=self.size,
            )  # fmt: skip

    def _make_plain(self) -> None:
        """Convert all numbers and sequences to builtin types."""
        for name in _WHOLE:
            value = getattr(self, name)
            if name != "test_size" or value is not None:
                object.__setattr__(self, name, whole(name, value))
        for name in _REAL:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise invalid(name, value, "a finite number")
            object.__setattr__(self, name, float(value))
        for name in _SWITCHES:
            value = getattr(self, name)
            if not (isinstance(value, bool | np.bool_) or (name == "mirror" and value is None)):
                raise invalid(name, value, "True, False or None" if name == "mirror" else "True or False")
            object.__setattr__(self, name, value if value is None else bool(value))
        for name in _LEAST:
            object.__setattr__(self, name, _several(name, getattr(self, name)))

    def _check_numbers(self) -> None:
        for name in ("size", "test_size", "batch_size", "accumulate", "learning_rate", "layer_decay"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise invalid(name, value, "a positive number")
        for name, least in (("epochs", 0), ("unfreeze", -1), ("patience", 0), ("weight_decay", 0)):
            if getattr(self, name) < least:
                raise invalid(name, getattr(self, name), f"at least {least}")
        for name in ("label_smoothing", "dropout", "stochastic_depth", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                raise invalid(name, getattr(self, name), "a number in [0, 1)")
        if not 0 <= self.snapshots <= max(1, self.epochs):
            raise invalid("snapshots", self.snapshots, f"0 to epochs = {self.epochs}")
        if self.crops not in CROPS:
            raise invalid("crops", self.crops, f"one of {CROPS}")
        if self.batch_size % self.accumulate:
            raise invalid("accumulate", self.accumulate, f"a divisor of batch_size {self.batch_size}")

    @property
    def evaluation_policy(self) -> augment.Policy:
        """The centre crop at the size of images at prediction."""
        return augment.Policy.none(self.test_size or self.size)

    @property
    def noise_policy(self) -> augment.Policy:
        """The training augmentation without mixing, for test images; `Policy.light` if nothing was trained."""
        return replace(self.policy, mixup=0.0, cutmix=0.0) if self.epochs else augment.Policy.light(self.size)

    @property
    def asks_for_crops(self) -> bool:
        """Whether the recipe fixes `crops` and `scales`."""
        return self.crops != 1 or self.scales is not None

    @property
    def cycle_ends(self) -> tuple[int, ...]:
        """Epochs after which a learning-rate cycle ends and a snapshot is taken.

        The first cycle takes two thirds of the epochs. The other cycles share the rest, with at least one epoch each
        (Garipov et al. 2018).
        """
        period = max(1, self.epochs // (3 * max(1, self.snapshots - 1)))
        return tuple(self.epochs - i * period for i in reversed(range(max(1, self.snapshots))))

    def __repr__(self) -> str:
        changes = (
            f"{f.name}={value!r}" for f in fields(self)
            if f.repr and (value := getattr(self, f.name)) != f.default and f.name not in ("name", "size")
        )  # fmt: skip
        return described("Recipe", repr(self.name), self.size, *changes)

    def __str__(self) -> str:
        lines = [f"recipe {self.name!r}: {self.size} px, " + self._training, *(f"  because {r}" for r in self.reasons)]
        return "\n".join(lines)

    @property
    def headline(self) -> str:
        """One line with the trained part of the network and the image size."""
        return f"{self._training}, {self.size} px ({self.name})"

    @property
    def _training(self) -> str:
        if not self.epochs:
            return "linear classifier on the frozen network"
        stages = {0: "no stage", -1: "all stages"}.get(self.unfreeze, f"the {self.unfreeze} deepest stages")
        start = "from the linear classifier" if self.warm_start else "from random weights"
        return f"{stages} trained {start}, up to {self.epochs} epochs at learning rate {self.learning_rate:g}"

    @property
    def reasons(self) -> tuple[str, ...]:
        """One sentence for each of the `decisions`."""
        return tuple(map(str, self.decisions))

    def because(self, code: str, text: str, **values: Any) -> "Recipe":
        """Return the recipe with one more reason."""
        return self.with_reasons(Reason(code, text, values))

    def with_reasons(self, *reasons: Reason) -> "Recipe":
        """Return the recipe with further reasons."""
        return replace(self, decisions=(*self.decisions, *reasons))


_WHOLE = ("size", "test_size", "epochs", "unfreeze", "batch_size", "accumulate", "patience", "snapshots", "crops")
_REAL = ("learning_rate", "layer_decay", "weight_decay", "label_smoothing", "dropout", "stochastic_depth", "averaging")
_SWITCHES = ("warm_start", "interpolate", "balanced", "mirror", "calibrate", "refit")
_LEAST = {"taps": 0, "scales": 1}


def invalid(field: str, value: object, expected: str) -> RecipeError:
    message = f"Recipe.{field} is {value!r}; expected {expected}"
    return RecipeError(message, code="recipe.value", field=field, value=value)


def whole(name: str, value: Any) -> int:  # Any: type checkers do not support the numeric tower
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise invalid(name, value, "a whole number")
    return int(value)


def _several(name: str, values: object) -> tuple[int, ...] | None:
    """Return distinct whole numbers as a tuple."""
    if values is None:
        return None
    if not isinstance(values, tuple | list) or not values:
        raise invalid(name, values, "whole numbers such as (1, 2), or None")
    numbers, least = tuple(whole(name, value) for value in values), _LEAST[name]
    if min(numbers) < least or len(set(numbers)) < len(numbers):
        raise invalid(name, numbers, f"different numbers of at least {least}")
    return numbers
