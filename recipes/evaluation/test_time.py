"""Average it out at test time: crops, scales, whole images, and the noise of the training."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from rich.progress import Progress
from scipy.special import softmax

import augment
from layers.noise import training_mode
from recipes.data.images import ImageData
from recipes.errors import RecipeError
from recipes.networks.compiled import compiled
from recipes.networks.fully_convolutional import can_be_dense, dense_model, stride, whole_cells
from recipes.planning.recipe import Recipe

LECTURE_SCALES = (224, 256, 384, 480, 640)  # short sides for crops of 224 pixels (He et al. 2016)
_WHOLE_UP_TO = 4 / 3  # times the crops' side; beyond, most windows miss what the photo shows, which costs accuracy
_PHOTO = 4 / 3  # aspect by which the cost of a whole image is told before any is seen
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Crops:
    """A way to look at one image several times.

    grid:    the crops whose predictions are averaged, at every scale that is not dense.
    dense:   scales at which every window of the whole image is looked at in one pass instead, see `dense_model`.
    mirror:  whether those are mirrored too.
    average: "probabilities" or "logits" (the geometric mean of the probabilities, normalised).
    """

    grid: augment.CropGrid | None
    dense: tuple[int, ...] = ()
    mirror: bool = False
    average: str = "probabilities"
    size: int = 224

    @property
    def opener(self) -> augment.CropGrid:
        """A grid that decodes as finely as the finest of the looks needs."""
        if not self.grid:
            return augment.multicrop(self.dense, 1, min(self.dense))
        return augment.multicrop((*self.grid.scales, *self.dense), 1, self.size) if self.dense else self.grid

    @property
    def cost(self) -> float:
        """Pixels that the network sees, in single crops; a dense image counts as a photo of 4:3."""
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
    """ResNet's five test scales, in the proportions that they have to crops of 224 pixels, for crops of `size`."""
    return tuple(round(scale * size / 224) for scale in LECTURE_SCALES)


def crop_grid(recipe: Recipe, crops: int = 10, scales=None) -> augment.CropGrid:
    """The grid of `crops` crops at each scale for a classifier made by `recipe`.

    scales: short sides in pixels; None: for one crop its size, for several 256/224 of it, as in the lecture.

    Raises: RecipeError for another number of crops, or a scale below the crops' size.
    """
    size = recipe.evaluation_policy.size
    scales = scales or (size if crops == 1 else round(size * 256 / 224),)
    try:
        return augment.multicrop(tuple(scales), crops, size)
    except augment.PolicyError as error:
        raise RecipeError(f"{error}; crops of this classifier have a side of {size} pixels") from None


def check_looks(scales, mode: str, average: str) -> None:
    """Raises: RecipeError for what `Result.evaluate` cannot mean."""
    if mode not in ("auto", "crops", "dense") or average not in ("probabilities", "logits"):
        raise RecipeError(
            f"mode is {mode!r} and average {average!r}; expected 'auto', 'crops' or 'dense', and 'probabilities' or "
            "'logits'"
        )
    if scales is not None and (not isinstance(scales, list | tuple) or not scales):
        raise RecipeError(f"scales is {scales!r}; expected short sides in pixels, such as (256,), or None")


def ways(model: keras.Model, recipe: Recipe, crops: int, scales=None, mode="auto", average="probabilities") -> Crops:
    """How `Result.evaluate(crops=…, scales=…, mode=…)` looks at an image.

    The scales of whole images are rounded to multiples of the network's stride. On JAX "auto" is `usual_mode`.
    Mirror images that the model averages over by itself are not shown to it a second time.

    Raises: RecipeError for an unknown mode or average, and where mode="dense" cannot be had.
    """
    check_looks(scales, mode, average)
    mode = usual_mode() if mode == "auto" else mode
    grid = crop_grid(recipe, crops, scales)
    size, mirror = grid.size, crops == 10 and not recipe.mirror
    any_size = can_be_dense(model)
    if mode == "dense" and not any_size:
        raise RecipeError(
            f"mode='dense' shows the network whole images; it takes {model.inputs[0].shape[1:3]} pixels (None: any), "
            "and must average feature maps before its classifier; use mode='crops'"
        )
    dense = ()
    if mode == "dense":
        dense = grid.scales
    elif mode == "auto" and crops > 1 and any_size:
        looks = 10 if mirror else 5
        dense = tuple(
            s for s in grid.scales if (1 + mirror) * _whole_cost(s, size) < looks and s <= _WHOLE_UP_TO * size
        )
    rest = tuple(scale for scale in grid.scales if scale not in dense)
    if dense:
        window = whole_cells(model, size)
        dense = tuple(max(window, whole_cells(model, scale)) for scale in dense)
    per_scale = 5 if crops == 10 and recipe.mirror else crops
    return Crops(augment.multicrop(rest, per_scale, size) if rest else None, dense, mirror, average, size)


def usual_mode() -> str:
    """ "crops" on JAX, which compiles the network for each new shape of an image; that takes longer than the crops of
    many. "auto" on other backends."""
    return "crops" if keras.backend.backend() == "jax" else "auto"


def _whole_cost(scale: int, size: int) -> float:
    return _PHOTO * scale**2 / size**2


def averaged(model: keras.Model, data: ImageData, crops: Crops, batch_size: int = 32) -> np.ndarray:
    """(n, classes) probabilities of `data` in its order: means over the crops. Every image is decoded once."""
    at_once = max(1, round(batch_size / crops.cost))
    dense, step = (dense_model(model, crops.size), stride(model)) if crops.dense else (None, 1)
    opener = crops.opener
    source = data.source()

    def look(index):
        pixels = opener.open(source.read(index)[0])
        views = [crops.grid(pixels)] if crops.grid else []
        return index, tuple(views + [augment.whole(pixels, scale, step) for scale in crops.dense])

    looks = tf.data.Dataset.range(len(data)).map(
        tf.autograph.experimental.do_not_convert(look), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if crops.dense:
        looks = looks.group_by_window(_shape_key, lambda key, same: same.batch(at_once), window_size=at_once)
    else:
        looks = looks.batch(at_once)
    rows = None
    with Progress(transient=True, disable=len(data) * crops.cost < 1000) as progress:
        task = progress.add_task(str(crops), total=len(data))
        for index, views in looks.prefetch(2):
            found = _averaged(model, dense, [view.numpy() for view in views], crops)
            rows = np.empty((len(data), found.shape[1])) if rows is None else rows
            rows[index.numpy()] = found
            progress.advance(task, len(found))
    return rows


@tf.autograph.experimental.do_not_convert
def _shape_key(index, views):
    """One number for the shapes of the whole images, which have rank 3."""
    key = tf.constant(0, tf.int64)
    for view in views:
        if view.shape.rank == 3:
            shape = tf.shape(view, tf.int64)
            key = (key * 8191 + shape[0]) * 8191 + shape[1]
    return key


def _averaged(model, dense, views: list[np.ndarray], crops: Crops) -> np.ndarray:
    """(batch, classes) of the views of a batch of images: crops (batch, crops, …) and whole images (batch, …).

    A scale that is seen whole counts as much as all crops of another scale.
    """
    n, total, weight = len(views[0]), 0.0, 0.0
    for view in views:
        if view.ndim == 5:
            looks = model.predict_on_batch(view.reshape(-1, *view.shape[2:])).reshape(n, view.shape[1], -1)
            share = len(crops.grid.scales)
        else:
            both = np.concatenate([view, view[:, :, ::-1]]) if crops.mirror else view
            looks = dense.predict_on_batch(both)
            looks = looks.reshape(1 + crops.mirror, n, -1, looks.shape[-1]).swapaxes(0, 1)
            looks = looks.reshape(n, -1, looks.shape[-1])
            share = 1
        looks = looks.astype(np.float64)
        total = total + share * (np.log(np.maximum(looks, _TINY)) if crops.average == "logits" else looks).mean(1)
        weight += share
    return softmax(total / weight, -1) if crops.average == "logits" else total / weight


@dataclass(frozen=True, eq=False)
class Noisy:
    """Predictive moments over the noise of the training: see `layers.MonteCarlo`.

    mean, std:          (n, classes) of the probabilities.
    mutual_information: (n,) nats that the samples disagree about: H(E p) − E H(p).
    """

    mean: np.ndarray
    std: np.ndarray
    mutual_information: np.ndarray


def noisy(model: keras.Model, data: ImageData, recipe: Recipe, samples: int, seed: int = 0) -> Noisy:
    """Moments of `samples` predictions, each of another draw of the training's augmentation and of the model's noise
    layers (dropout, DropConnect, stochastic depth, fractional pooling); batch statistics stay as they are.

    A classifier whose training images were not augmented is shown the draws of `Policy.light`.

    Raises: RecipeError for fewer than two samples.
    """
    if samples < 2:
        raise RecipeError(f"samples is {samples}; at least 2 are needed to tell a spread")
    policy = recipe.noise_policy
    total, squares, entropies = 0.0, 0.0, 0.0
    source = data.source()

    def sample(epoch):
        return augment.epoch(source, policy, batch_size=recipe.batch_size, seed=seed, epoch=epoch, shuffle=False)

    batches = tf.data.Dataset.range(samples).flat_map(sample).prefetch(2).as_numpy_iterator()
    per_sample = -(-len(data) // recipe.batch_size)
    with Progress(transient=True, disable=len(data) * samples < 1000) as progress, training_mode(model):
        look = compiled(lambda images: model(images, training=False), model)
        for _ in progress.track(range(samples), description="noisy predictions"):
            rows = [look(next(batches)[0]) for _ in range(per_sample)]
            p = np.concatenate(rows).astype(np.float64)
            total, squares, entropies = total + p, squares + p**2, entropies + _entropy(p)
    mean = total / samples
    variance = np.maximum(squares - samples * mean**2, 0) / (samples - 1)
    return Noisy(mean, np.sqrt(variance), np.maximum(_entropy(mean) - entropies / samples, 0))


def _entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.maximum(p, _TINY))).sum(-1)
