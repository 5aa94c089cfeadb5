"""Take fixed crops of an image, for averaging predictions at test time."""

import reprlib
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .cache import decode_for
from .geometry import centre_corner, resized_size
from .policy import Policy, PolicyError
from .region import as_rgb
from .tensors import Tensor

_LONGEST = 8  # maximum long side, as a multiple of the short side
_CORNERS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))  # centre first, then corners


@dataclass(frozen=True)
class CropGrid:
    """Return the crops of an image when called with it; `boxes` returns their positions.

    Attributes:
        scales: Short sides in pixels.
        crops: Number of crops per scale, 1, 5 or 10.
        size: Side of a crop.
    """

    scales: tuple[int, ...]
    crops: int
    size: int

    def __len__(self) -> int:
        return len(self.scales) * self.crops

    def __repr__(self) -> str:
        return f"CropGrid(scales={reprlib.repr(self.scales)}, crops={self.crops}, size={self.size})"

    @property
    def policy(self) -> Policy:
        """Return the finest scale as a policy, which sets the resolution at which a large photo is decoded."""
        return Policy(size=self.size, short_side=(min(self.scales), max(self.scales)), flip=0.0, pca=0.0, centre=True)

    def boxes(self, height: Tensor, width: Tensor) -> Tensor:
        """Return float32 (crops, 4) of (top, left, height, width) in an image of that size; a negative width mirrors.

        The boxes follow the order of `scales`; at each scale, the centre comes first, then the corners, then mirror
        images.
        """
        whole = tf.cast(tf.stack([height, width]), tf.float32)
        rows = []
        for scale in self.scales:
            resized = tf.cast(self._resized(height, width, scale), tf.float32)
            for at, mirrored in self._places():
                (top, left), (high, wide) = (
                    tf.unstack(v * whole / resized) for v in (self._corner(at, resized), self.size)
                )
                rows.append(tf.stack([top, left + wide, high, -wide] if mirrored else [top, left, high, wide]))
        return tf.stack(rows)

    def open(self, image: Tensor) -> Tensor:
        """Return RGB pixels (height, width, 3) of pixels or bytes, decoded only as finely as the scales need."""
        image = tf.convert_to_tensor(image)
        return decode_for(image, self.policy) if image.dtype == tf.string else as_rgb(image)

    def __call__(self, image: Tensor) -> Tensor:
        """Return float32 (crops, size, size, 3) of 0..255 of encoded bytes or pixels (height, width, 1 | 3 | 4).

        Crops are slices of the image resized with antialiasing. Only the visible part is computed, so memory depends on
        the number of crops, even for very long images. In tf.data and exported graphs, use `dataset.map(lambda image,
        label: (grid(image), label))`.
        """
        image = self.open(image)
        height, width = tf.unstack(tf.shape(image)[:2])
        rows = []
        for scale in self.scales:
            crops = self._slices(image, self._resized(height, width, scale))
            rows += [crops, tf.reverse(crops, [2])] if self.crops == 10 else [crops]
        return tf.ensure_shape(tf.concat(rows, 0), (len(self), self.size, self.size, 3))

    def _slices(self, image: Tensor, resized: Tensor) -> Tensor:
        """Return (crops, size, size, 3), the centre and the corners of the image as if resized to (height, width)."""
        places = _CORNERS[: min(self.crops, 5)]
        corners = [tf.cast(self._corner(at, tf.cast(resized, tf.float32)), tf.int32) for at in places]

        def one_by_one() -> Tensor:
            return tf.stack([resized_window(image, resized, corner, (self.size, self.size)) for corner in corners])

        def from_the_whole() -> Tensor:
            whole = tf.image.resize(image, resized, antialias=True)
            slices = [whole[top : top + self.size, left : left + self.size] for top, left in map(tf.unstack, corners)]
            return tf.stack(slices)

        larger = tf.reduce_prod(tf.cast(resized, tf.float32)) > len(places) * self.size**2
        return tf.cond(larger, one_by_one, from_the_whole)

    def _places(self) -> list[tuple[tuple[float, float], bool]]:
        corners = _CORNERS[: min(self.crops, 5)]
        return [(at, mirrored) for mirrored in ((False, True) if self.crops == 10 else (False,)) for at in corners]

    def _corner(self, at: Tensor, resized: Tensor) -> Tensor:
        return centre_corner(resized, self.size) if at == _CORNERS[0] else (resized - self.size) * at

    def _resized(self, height: Tensor, width: Tensor, scale: Tensor) -> Tensor:
        return tf.cast(resized_size(height, width, scale), tf.int32)


def whole(image: Tensor, scale: int, multiple: int = 1) -> Tensor:
    """Return float32 RGB of the whole image (height, width, 1 | 3 | 4), with its short side resized to `scale` pixels.

    Images more than 8 times as long as wide are cut to the middle of 8 times the width, because 1 × 5,000 pixels would
    become 224 × 1,120,000.

    Args:
        image: pixels.
        scale: the short side.
        multiple: the long side is rounded to a multiple of this number, so that photos of one camera can be batched.
    """
    image = as_rgb(tf.convert_to_tensor(image))
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    sides = sides * (scale / tf.reduce_min(sides))
    long = tf.maximum(tf.round(sides / multiple) * multiple, tf.cast(scale, tf.float32))
    size = tf.cast(tf.where(sides > scale, long, tf.cast(scale, tf.float32)), tf.int32)
    longest = -(-_LONGEST * scale // multiple) * multiple
    shown = tf.minimum(size, longest)
    return resized_window(image, size, (size - shown) // 2, shown)


def resized_window(image: Tensor, resized: Tensor, corner: Tensor, size: Any) -> Tensor:
    """Return the window of `size` pixels at `corner` of tf.image.resize(image, resized, antialias=True).

    Only this window is computed. All arguments are int32 (height, width) or (y, x).
    """
    whole, corner, size = tf.shape(image)[:2], tf.cast(corner, tf.float32), tf.convert_to_tensor(size)
    scale = tf.cast(resized, tf.float32) / tf.cast(whole, tf.float32)
    reach = tf.math.ceil(tf.maximum(1 / scale, 1)) + 1  # half a triangle filter, plus one
    start = tf.cast(tf.maximum(tf.floor(corner / scale) - reach, 0), tf.int32)
    stop = tf.minimum(tf.cast(tf.math.ceil((corner + tf.cast(size, tf.float32)) / scale) + reach, tf.int32), whole)
    seen = tf.cast(image[start[0] : stop[0], start[1] : stop[1]], tf.float32)
    offset = tf.cast(start, tf.float32) * scale - corner
    return tf.raw_ops.ScaleAndTranslate(
        images=seen[None], size=size, scale=scale, translation=offset, kernel_type="triangle", antialias=True
    )[0]


def multicrop(scales: Any = (224,), crops: int = 10, size: int = 224) -> CropGrid:
    """Return a function that takes the crops to average at test time (Krizhevsky et al. 2012; He et al. 2016).

    Args:
        scales: short sides to which an image is scaled; ResNet's are (224, 256, 384, 480, 640).
        crops: number at each scale: 1 (the centre), 5 (and the four corners) or 10 (and their mirror images).
        size: side of a crop in pixels.

    Raises:
        PolicyError: If `crops` is another number, or a scale is smaller than a crop.

    Example:
        >>> grid = augment.multicrop((224, 256, 384, 480, 640), crops=10)
        >>> probabilities = model.predict(grid(encoded_bytes)).mean(axis=0)
    """
    scales = tuple(scales) if isinstance(scales, tuple | list) else (scales,)
    if crops not in (1, 5, 10):
        raise PolicyError(f"crops is {crops}; expected 1 (centre), 5 (and corners) or 10 (and mirror images)")
    if not scales or min(scales) < size:
        raise PolicyError(f"scales are {scales}; expected short sides of at least size = {size} pixels")
    return CropGrid(scales, crops, size)
