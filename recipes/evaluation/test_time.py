"""Average predictions at test time over crops, scales and whole images."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.special import softmax

from recipes import augment
from recipes.core.progress import phase
from recipes.data.images import ImageData
from recipes.errors import RecipeError
from recipes.networks.fully_convolutional import can_be_dense, dense_model, stride, whole_cells
from recipes.planning.recipe import Recipe

LECTURE_SCALES = (224, 256, 384, 480, 640)  # short sides in pixels for crops of 224 pixels (He et al. 2016)
# factor on the side of the crops; above it, most windows miss the subject of the photo, which reduces accuracy
_WHOLE_UP_TO = 4 / 3
_PHOTO = 4 / 3  # assumed aspect ratio of whole images
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Crops:
    """The views of one image whose predictions are averaged.

    Attributes:
        grid: The crops at every scale that is not dense.
        dense: Scales at which one pass classifies all windows of the whole image instead of crops, see `dense_model`.
        mirror: Whether the whole images are also mirrored.
        average: "probabilities" or "logits" (the normalised geometric mean of the probabilities).
        size: Side of a crop, pixels.
    """

    grid: augment.CropGrid | None
    dense: tuple[int, ...] = ()
    mirror: bool = False
    average: str = "probabilities"
    size: int = 224

    @property
    def opener(self) -> augment.CropGrid:
        """A grid that decodes images finely enough for all views."""
        if not self.grid:
            return augment.multicrop(self.dense, 1, min(self.dense))
        return augment.multicrop((*self.grid.scales, *self.dense), 1, self.size) if self.dense else self.grid

    @property
    def cost(self) -> float:
        """Pixels of all views divided by those of a single crop; whole images are assumed to have the ratio 4:3."""
        whole = sum((1 + self.mirror) * _whole_cost(scale, self.size) for scale in self.dense)
        return whole + (len(self.grid) if self.grid else 0)

    def __str__(self) -> str:
        parts = []
        if self.grid:
            scales = ", ".join(map(str, self.grid.scales))
            parts.append(f"{self.grid.crops} crop{'s' * (self.grid.crops > 1)} at {scales} px")
        if self.dense:
            mirrored = " and its mirror image" if self.mirror else ""
            parts.append(f"the whole image{mirrored} at {', '.join(map(str, self.dense))} px")
        return " and ".join(parts)


def lecture_scales(size: int = 224) -> tuple[int, ...]:
    """Return ResNet's five test scales for crops of 224 pixels, in proportion to `size` pixels."""
    return tuple(round(scale * size / 224) for scale in LECTURE_SCALES)


def crop_grid(recipe: Recipe, crops: int = 10, scales: Sequence[int] | None = None) -> augment.CropGrid:
    """Return the grid of crops for the classifier of a recipe.

    Args:
        recipe: The recipe of the classifier.
        crops: Number of crops per scale.
        scales: Short sides, pixels. None takes the size of the crop for one crop, and 256/224 of it for several crops,
            as in the lecture.

    Raises:
        RecipeError: If the number of crops is not supported, or a scale is below the size of the crops.
    """
    size = recipe.evaluation_policy.size
    scales = scales or (size if crops == 1 else round(size * 256 / 224),)
    try:
        return augment.multicrop(tuple(scales), crops, size)
    except augment.PolicyError as error:
        raise RecipeError(
            f"{error}; crops of this classifier have a side of {size} pixels",
            code="crops.grid",
            crops=crops,
            scales=scales,
        ) from None


def check_crops(scales: object, mode: str, average: str) -> None:
    """Check arguments of `Result.evaluate`.

    Raises:
        RecipeError: If the mode or the average is unknown, or the scales are not a sequence.
    """
    if mode not in ("auto", "crops", "dense") or average not in ("probabilities", "logits"):
        raise RecipeError(
            f"mode is {mode!r} and average {average!r}; expected 'auto', 'crops' or 'dense', and 'probabilities' or "
            "'logits'",
            code="crops.mode",
            mode=mode,
            average=average,
        )
    if scales is not None and (not isinstance(scales, list | tuple) or not scales):
        raise RecipeError(
            f"scales is {scales!r}; expected short sides in pixels, such as (256,), or None",
            code="crops.scales",
            scales=scales,
        )


def make_crops(
    model: keras.Model, recipe: Recipe, crops: int, scales: Sequence[int] | None = None, mode: str = "auto",
    average: str = "probabilities",
) -> Crops:  # fmt: skip
    """Return the views that `Result.evaluate(crops=…, scales=…, mode=…)` averages over.

    Scales of whole images are rounded to multiples of the network's stride. On JAX, "auto" means the result of
    `usual_mode`. If the model itself averages over mirror images, the views contain no mirror images.

    Args:
        model: Model from images to probabilities.
        recipe: The recipe of the model.
        crops: Number of crops per scale.
        scales: Short sides, pixels; None has the same meaning as in `crop_grid`.
        mode: "auto", "crops" or "dense".
        average: "probabilities" or "logits".

    Raises:
        RecipeError: If the mode or the average is unknown, or the model does not support mode="dense".
    """
    check_crops(scales, mode, average)
    mode = usual_mode() if mode == "auto" else mode
    grid = crop_grid(recipe, crops, scales)
    size, mirror = grid.size, crops == 10 and not recipe.mirror
    any_size = can_be_dense(model)
    if mode == "dense" and not any_size:
        raise RecipeError(
            "mode='dense' needs a network that accepts images of any size and averages feature maps before its "
            f"classifier; this network accepts {model.inputs[0].shape[1:3]} pixels (None: any). Use mode='crops'",
            code="crops.dense",
        )
    dense = ()
    if mode == "dense":
        dense = grid.scales
    elif mode == "auto" and crops > 1 and any_size:
        count = 10 if mirror else 5
        dense = tuple(
            s for s in grid.scales if (1 + mirror) * _whole_cost(s, size) < count and s <= _WHOLE_UP_TO * size
        )
    rest = tuple(scale for scale in grid.scales if scale not in dense)
    if dense:
        window = whole_cells(model, size)
        dense = tuple(max(window, whole_cells(model, scale)) for scale in dense)
    per_scale = 5 if crops == 10 and recipe.mirror else crops
    return Crops(augment.multicrop(rest, per_scale, size) if rest else None, dense, mirror, average, size)


def usual_mode() -> str:
    """Return "crops" on JAX, which compiles the network for each new shape of an image, and "auto" elsewhere."""
    return "crops" if keras.backend.backend() == "jax" else "auto"


def _whole_cost(scale: int, size: int) -> float:
    return _PHOTO * scale**2 / size**2


def averaged(model: keras.Model, data: ImageData, crops: Crops, batch_size: int = 32) -> np.ndarray:
    """Return the probabilities (n, classes) of `data` in its order, averaged over the views.

    Every image is decoded once.

    Args:
        model: Model from images to probabilities.
        data: The images, at least one.
        crops: The views of each image.
        batch_size: Number of images in a batch for one crop; more views reduce it.
    """
    at_once = max(1, round(batch_size / crops.cost))
    dense, step = (dense_model(model, crops.size), stride(model)) if crops.dense else (None, 1)
    opener = crops.opener
    source = data.source()

    def views_of(index: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        pixels = opener.open(source.read(index)[0])
        views = [crops.grid(pixels)] if crops.grid else []
        return index, tuple(views + [augment.whole(pixels, scale, step) for scale in crops.dense])

    batches = tf.data.Dataset.range(len(data)).map(
        tf.autograph.experimental.do_not_convert(views_of), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if crops.dense:
        batches = batches.group_by_window(
            _shape_key,  # pyright: ignore[reportArgumentType]  # the function gets all components of an element
            lambda key, same: same.batch(at_once),
            window_size=at_once,
        )
    else:
        batches = batches.batch(at_once)
    indices, rows = [], []  # images of one shape are batched, so the order changes
    with phase(str(crops), len(data)) as progress:
        for index, views in batches.prefetch(2):
            indices.append(index.numpy())
            rows.append(_averaged(model, dense, [view.numpy() for view in views], crops))
            progress.advance(len(index))
    return np.concatenate(rows)[np.argsort(np.concatenate(indices))]


@tf.autograph.experimental.do_not_convert
def _shape_key(index: tf.Tensor, views: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return a number that is equal for elements whose whole images (rank 3) have the same shapes."""
    key = tf.constant(0, tf.int64)
    for view in views:
        if view.shape.rank == 3:
            shape = tf.shape(view, tf.int64)
            key = (key * 8191 + shape[0]) * 8191 + shape[1]
    return key


def _averaged(model: keras.Model, dense: keras.Model | None, views: list[np.ndarray], crops: Crops) -> np.ndarray:
    """Return probabilities (batch, classes) averaged over crops (batch, crops, …) and whole images (batch, …).

    A whole image at one scale has the same weight as all crops at another scale.
    """
    n, total, weight = len(views[0]), np.zeros(1), 0
    for view in views:
        if crops.grid and view.ndim == 5:
            outputs = model.predict_on_batch(view.reshape(-1, *view.shape[2:])).reshape(n, view.shape[1], -1)
            share = len(crops.grid.scales)
        else:
            assert dense is not None  # whole images only exist with a dense model
            outputs = dense.predict_on_batch(np.concatenate([view, view[:, :, ::-1]]) if crops.mirror else view)
            outputs = outputs.reshape(1 + crops.mirror, n, -1, outputs.shape[-1]).swapaxes(0, 1)
            outputs = outputs.reshape(n, -1, outputs.shape[-1])
            share = 1
        outputs = outputs.astype(np.float64)
        total = total + share * (np.log(np.maximum(outputs, _TINY)) if crops.average == "logits" else outputs).mean(1)
        weight += share
    return softmax(total / weight, -1) if crops.average == "logits" else total / weight
