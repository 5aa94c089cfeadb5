"""What an augmentation may do, as a frozen dataclass of ranges."""

from dataclasses import dataclass, replace


class PolicyError(ValueError):
    """A range of a Policy is impossible."""


@dataclass(frozen=True)
class Policy:
    """Ranges that the parameters of an image's augmentation are drawn from, uniformly unless said otherwise.

    size:       side of the square output, pixels.
    short_side: (low, high) pixels to which the image's short side is scaled before a size × size patch is cut.
    area:       (low, high) share of the image's area that the patch covers, instead of `short_side` (Inception style).
    aspect:     (low, high) width / height of that patch, log-uniform; only with `area`.
    flip:       probability of a horizontal mirror image.
    brightness, contrast, saturation: (low, high) multipliers.
    hue:        (low, high) degrees of rotation about the grey axis.
    centre:     cut the patch in the middle instead of at a random place.
    """

    size: int = 224
    short_side: tuple[float, float] | None = (256, 480)
    area: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    brightness: tuple[float, float] = (1, 1)
    contrast: tuple[float, float] = (1, 1)
    saturation: tuple[float, float] = (1, 1)
    hue: tuple[float, float] = (0, 0)
    centre: bool = False

    def __post_init__(self):
        if self.size < 1:
            raise PolicyError(f"size is {self.size}; expected a positive number of pixels")
        if (self.short_side is None) == (self.area is None):
            raise PolicyError("set exactly one of short_side (pixels) and area (share of the image)")
        if not 0 <= self.flip <= 1:
            raise PolicyError(f"flip is {self.flip}; expected a probability")
        for name in ("short_side", "area", "aspect", "brightness", "contrast", "saturation", "hue"):
            bounds = getattr(self, name)
            if bounds is None:
                continue
            low, high = bounds
            if low > high or (name != "hue" and low < 0):
                raise PolicyError(f"{name} is {bounds}; expected (low, high) with 0 <= low <= high")
        if self.short_side and self.short_side[0] < self.size:
            raise PolicyError(f"short_side begins at {self.short_side[0]}, below size {self.size}: no patch would fit")
        if self.area and not 0 < self.area[0] <= self.area[1] <= 1:
            raise PolicyError(f"area is {self.area}; expected shares in (0, 1]")

    @classmethod
    def none(cls, size: int = 224, *, short_side: float | None = None) -> "Policy":
        """The plain centre crop: short side scaled to `short_side` (default: `size`), no noise."""
        side = size if short_side is None else short_side
        return cls(size=size, short_side=(side, side), flip=0.0, centre=True)

    @classmethod
    def light(cls, size: int = 224) -> "Policy":
        """Random resized crops of 35-100 % of the area, mirror images."""
        return cls(size=size, short_side=None, area=(0.35, 1.0))

    @property
    def colours(self) -> bool:
        """Whether any photometric transform is on."""
        return (self.brightness, self.contrast, self.saturation, self.hue) != ((1, 1), (1, 1), (1, 1), (0, 0))

    def resized(self, size: int) -> "Policy":
        """The same policy for another output size: pixel ranges scale along."""
        side = self.short_side and tuple(bound * size / self.size for bound in self.short_side)
        return replace(self, size=size, short_side=side)
