"""Define the ranges of an augmentation as a frozen dataclass."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any

from .draws import MOST_OPERATIONS
from .tensors import Border

_SYMMETRIC = ("translate", "rotate", "stretch", "shear", "lens")
_MULTIPLIERS = ("brightness", "contrast", "saturation")
_RANGES = (*_SYMMETRIC, *_MULTIPLIERS, "short_side", "area", "aspect", "hue", "fill")
_RAND = ("rand_operations", "rand_magnitude", "rand_stddev")
_NUMBERS = ("size", "flip", "pca", "mixup", "cutmix", "erase", *_RAND)


class PolicyError(ValueError):
    """Report that a range of a Policy is impossible, or that a policy does not fit its use."""


def _plain(value: Any) -> Any:
    """Convert to a Python number or a tuple of numbers; return anything else unchanged."""
    value = value.tolist() if hasattr(value, "tolist") else value  # converts a NumPy value
    if isinstance(value, Real):
        return value
    if isinstance(value, list | tuple):
        numbers = tuple(v.tolist() if hasattr(v, "tolist") else v for v in value)
        return numbers if all(isinstance(number, Real) for number in numbers) else list(value)
    return value


@dataclass(frozen=True)
class Policy:
    """Hold the ranges of an image's augmentation parameters, which are drawn uniformly unless stated otherwise.

    The defaults are ResNet's training policy: a short side in [256, 480], a random 224 × 224 patch, mirror images, and
    a PCA colour offset. A geometric range may be one number r, which means [-r, r].

    Args:
        size: side of the square output in pixels.
        short_side: (low, high) pixels to which the short side is scaled before a size × size patch is cut at random.
        area: (low, high) share of the image's area in the patch, instead of `short_side`. As in torchvision's
            RandomResizedCrop, up to ten patches are drawn until one fits; otherwise the largest central patch is used.
        aspect: (low, high) width / height of that patch, log-uniform; only with `area`.
        flip: probability of a horizontal mirror image.
        translate: shift in both directions, as a fraction of the patch's side.
        rotate: counter-clockwise, in degrees.
        stretch: log2 of the factor by which width / height grows, at equal area.
        shear: degrees by which vertical lines lean.
        lens: k1 of p ↦ p · (1 + k1 r²), r = 1 in the corners of the patch: > 0 barrel, < 0 pincushion; |k1| < 1/3.
        brightness: (low, high) multipliers.
        contrast: (low, high) multipliers of the difference from the patch's mean colour.
        saturation: (low, high) multipliers.
        hue: (low, high) degrees of rotation about the grey axis.
        pca: standard deviation of α in the colour offset Σ α λ p along the principal components.
        mixup: parameter of Beta(a, a), 0 for off.
        cutmix: parameter of Beta(a, a), 0 for off. If both are on, each image gets one of the two with probability ½.
        erase: probability that a random box (2-33 % of the area) is erased.
        fill: RGB 0..255 of pixels beyond the image's border and in erased boxes. With None, the border reflects the
            image, and erased boxes have ImageNet's mean colour.
        centre: cut the patch in the middle instead of at a random place.
        extra: any Keras or keras-cv preprocessing layer, or a function of a float32 batch of 0..255. The layer is
            called on each batch after everything except mixing, with training=True if it takes that argument. It runs
            in tf.data on the CPU and draws its own random numbers, so the batches no longer depend on the seed alone.
            It may be slow: at 96 pixels on two cores, keras-cv's RandAugment processes about 660 images/s,
            keras.layers.RandAugment 90, and the rest of a policy 1,500.
        rand_operations: number of RandAugment's operations on each image, at most 4; 0 for off. See
            `Policy.rand_augment`.
        rand_magnitude: mean strength of RandAugment's operations, from 0 to 1.
        rand_stddev: standard deviation of the strength.

    Raises:
        PolicyError: If a field has a wrong value. The message names the field, the value and what was expected.

    Example:
        >>> Policy(size=160, short_side=None, area=(0.08, 1.0), rotate=10, brightness=(0.8, 1.2))
    """

    size: int = 224
    short_side: tuple[float, float] | None = (256, 480)
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    translate: float | tuple[float, float] = 0.0
    rotate: float | tuple[float, float] = 0.0
    stretch: float | tuple[float, float] = 0.0
    shear: float | tuple[float, float] = 0.0
    lens: float | tuple[float, float] = 0.0
    brightness: tuple[float, float] = (1, 1)
    contrast: tuple[float, float] = (1, 1)
    saturation: tuple[float, float] = (1, 1)
    hue: tuple[float, float] = (0, 0)
    pca: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    fill: tuple[float, float, float] | None = None
    centre: bool = False
    extra: Callable | None = None
    rand_operations: int = 0
    rand_magnitude: float = 0.5
    rand_stddev: float = 0.15

    def __post_init__(self) -> None:
        self._make_plain()
        if not 1 <= self.size < float("inf") or self.size != int(self.size):
            raise PolicyError(f"size is {self.size}; expected a positive whole number of pixels")
        object.__setattr__(self, "size", int(self.size))
        if (self.short_side is None) == (self.area is None):
            raise PolicyError(
                f"short_side is {self.short_side} and area is {self.area}; expected exactly one. Set the other one "
                f"to None"
            )
        self._check_crop()
        self._check_ranges()
        self._check_rand()

    def _make_plain(self) -> None:
        """Convert all numbers and sequences to Python numbers and tuples of numbers."""
        for name in _NUMBERS + _RANGES:
            value = _plain(getattr(self, name))
            single, several = isinstance(value, Real), isinstance(value, tuple)
            optional = name in ("short_side", "area", "fill") and value is None
            if not (optional or (single and name in _NUMBERS + _SYMMETRIC) or (several and name in _RANGES)):
                forms = {
                    _NUMBERS: "a number",
                    _SYMMETRIC: "a number r for (-r, r), or (low, high)",
                    ("fill",): "(red, green, blue) or None",
                }
                form = next((form for names, form in forms.items() if name in names), "(low, high)")
                raise PolicyError(f"{name} is {getattr(self, name)!r}; expected {form}")
            object.__setattr__(self, name, value)
        if self.extra is not None and not callable(self.extra):
            raise PolicyError(
                f"extra is {self.extra!r}; expected a preprocessing layer or a function of a batch of images"
            )

    def _check_crop(self) -> None:
        for name in ("short_side", "area", "aspect"):
            if getattr(self, name) is not None:
                self._check_bounds(name, 0.0, float("inf"), open_low=True)
        if self.short_side and self.short_side[0] < self.size:
            raise PolicyError(
                f"short_side begins at {self.short_side[0]}; expected at least size = {self.size}, so "
                f"that a patch fits. Raise short_side"
            )
        if self.area and self.area[1] > 1:
            raise PolicyError(f"area is {self.area}; expected shares of the image in (0, 1]")

    def _check_ranges(self) -> None:
        limits = {"translate": 1, "rotate": 360, "stretch": 3, "shear": 60, "lens": 0.333}
        for name, limit in limits.items():
            self._check_bounds(name, -limit, limit)
        for name in _MULTIPLIERS:
            self._check_bounds(name, 0.0, float("inf"))
        self._check_bounds("hue", -360, 360)
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise PolicyError(f"{name} is {getattr(self, name)}; expected a probability in [0, 1]")
        for name in ("pca", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise PolicyError(f"{name} is {getattr(self, name)}; expected 0 for off, or a positive number")
        if self.fill is not None and not (len(self.fill) == 3 and all(0 <= value <= 255 for value in self.fill)):
            raise PolicyError(f"fill is {self.fill}; expected three numbers, red, green and blue in 0..255")

    def _check_rand(self) -> None:
        operations = self.rand_operations
        if operations not in range(MOST_OPERATIONS + 1):
            raise PolicyError(
                f"rand_operations is {operations}; expected 0 for off, or a whole number up to {MOST_OPERATIONS}"
            )
        object.__setattr__(self, "rand_operations", int(operations))
        for name in ("rand_magnitude", "rand_stddev"):
            if not 0 <= getattr(self, name) <= 1:
                raise PolicyError(f"{name} is {getattr(self, name)}; expected a number in [0, 1]")

    def _check_bounds(self, name: str, least: float, most: float, open_low: bool = False) -> None:
        value = self.range(name)
        ordered = len(value) == 2 and value[0] <= value[1]
        if not ordered or value[0] < least or value[1] > most or (open_low and value[0] == least):
            raise PolicyError(
                f"{name} is {getattr(self, name)}; expected (low, high) with low <= high in [{least}, {most}]"
            )

    def __repr__(self) -> str:
        """Return the call that makes the policy, without default values, cut to 500 characters."""
        values = [(f, getattr(self, f.name)) for f in fields(self)]
        changes = [f"{f.name}={value!r}" for f, value in values if value != f.default or f.name == "size"]
        text = " ".join(", ".join(changes).split())
        return f"Policy({text if len(text) <= 490 else text[:489] + '…'})"

    def range(self, name: str) -> tuple[float, float]:
        """Return (low, high) of a field; (-r, r) if the field is one number r."""
        value = getattr(self, name)
        return (-value, value) if isinstance(value, int | float) else value

    def moves(self, *names: str) -> bool:
        """Return whether any of these geometric ranges differs from (0, 0)."""
        return any(self.range(name) != (0, 0) for name in names)

    @classmethod
    def none(cls, size: int = 224, *, short_side: float | None = None) -> "Policy":
        """Return the plain centre crop without noise; the short side is scaled to `short_side` (default: `size`)."""
        side = size if short_side is None else short_side
        return cls(size=size, short_side=(side, side), flip=0.0, pca=0.0, centre=True)

    @classmethod
    def light(cls, size: int = 224) -> "Policy":
        """Return random resized crops of 35-100 % of the area, with mirror images."""
        return cls(size=size, short_side=None, area=(0.35, 1.0), pca=0.0)

    @classmethod
    def resnet(cls, size: int = 224) -> "Policy":
        """Return the default policy, with a short side in [256, 480] for size 224 and in proportion for other sizes."""
        return cls().resized(size)

    @classmethod
    def strong(cls, size: int = 224) -> "Policy":
        """Return a policy for training from scratch on little data: every transform, with CutMix and MixUp.

        The policy makes soft labels, so use a loss that takes them.
        """
        return cls(
            size=size,
            short_side=None,
            area=(0.08, 1.0),
            translate=0.1,
            rotate=15,
            stretch=0.2,
            shear=10,
            lens=0.1,
            brightness=(0.6, 1.4),
            contrast=(0.6, 1.4),
            saturation=(0.6, 1.4),
            hue=(-18, 18),
            mixup=0.2,
            cutmix=1.0,
            erase=0.25,
        )

    @classmethod
    def rand_augment(
        cls, size: int = 224, *, operations: int = 2, magnitude: float = 0.5, stddev: float = 0.15
    ) -> "Policy":
        """Return `light` with RandAugment (Cubuk et al. 2019), with the operations of keras-cv's layer.

        Each operation is one of eleven, all equally likely: identity, auto contrast, equalize, solarize, colour,
        contrast, brightness, shear x, shear y, translate x and translate y. An operation's strength is drawn from
        N(magnitude, stddev²), clipped to [0, 1]. For contrast, brightness and translations, it is drawn uniformly from
        [-magnitude, magnitude].

        Args:
            size: side of the square output in pixels.
            operations: number of operations on each image, at most 4; `augmentations_per_image` of keras-cv.
            magnitude: mean strength, from 0 to 1.
            stddev: standard deviation of the strength; `magnitude_stddev` of keras-cv.

        Raises:
            PolicyError: If an argument has a wrong value. The message names the field of the policy.

        Example:
            >>> augment.pipeline(dataset, augment.Policy.rand_augment(160, magnitude=0.3), batch_size=64)
        """
        return replace(cls.light(size), rand_operations=operations, rand_magnitude=magnitude, rand_stddev=stddev)

    @property
    def axis_aligned(self) -> bool:
        """Return whether the geometry only crops, scales, shifts and mirrors."""
        return not (self.moves("rotate", "shear", "lens") or self.rand_operations)

    @property
    def border(self) -> Border:
        """Return the border beyond the image's edges: "reflect", the colour `fill`, or None if crops stay inside."""
        if self.axis_aligned and not self.moves("translate", "stretch"):
            return None
        return self.fill or "reflect"

    @property
    def colours(self) -> bool:
        """Return whether any photometric transform is on."""
        multipliers = any(self.range(name) != (1, 1) for name in _MULTIPLIERS)
        return multipliers or self.hue != (0, 0) or self.pca > 0

    @property
    def mixes(self) -> bool:
        """Return whether labels become soft."""
        return self.mixup > 0 or self.cutmix > 0

    def resized(self, size: int) -> "Policy":
        """Return the same policy for another output size, with pixel ranges in proportion."""
        if self.short_side is None:
            return replace(self, size=size)
        low, high = (bound * size / self.size for bound in self.short_side)
        return replace(self, size=size, short_side=(low, high))
