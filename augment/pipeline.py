"""Turn encoded bytes or pixels into augmented batches; every draw depends only on (seed, epoch, example index)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import tensorflow as tf

from . import color
from .cache import Cache
from .draws import SLOTS, uniforms
from .guard import Order, Work, guarded
from .mix import erase, mix, soft_labels
from .pca import IMAGENET_PCA, PCA
from .pixel_operations import operate
from .pixel_range import check_images, checked_batch
from .policy import Policy, PolicyError
from .region import Cut, Opened, Region, capacity, cut_out, fetch, open_image, pixel_type, plan
from .resample import resample
from .source import Shard, Source, Stream, as_source
from .tensors import Tensor


def pipeline(
    dataset: Any,
    policy: Policy,
    *,
    batch_size: int,
    seed: int = 0,
    epoch: Tensor = 0,
    pca: PCA | None = None,
    classes: int | None = None,
    cache: Cache | str | None = None,
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Return augmented batches for `model.fit`: a tf.data.Dataset of (float32 images 0..255, labels).

    Each pass over the dataset is the next epoch, beginning with `epoch`. The augmentation of an example depends only on
    (seed, epoch, index of the example), except for mixing, whose partner is the neighbour in the batch. A new pipeline
    with epoch=k repeats epoch k bit for bit on the same machine; another batch size or shard rounds differently, by at
    most 0.05 of 255. tf.train.Checkpoint cannot save the iterators; resume with `epoch`.

    A truncated JPEG only fails if the crop reaches the missing part, which may happen after many epochs.
    `recipes.audit` finds such files beforehand.

    Args:
        dataset: (images, labels) arrays, an `augment.Source` (both shuffled as a whole), or a tf.data.Dataset of
            (encoded bytes | image (height, width, 1|3|4), label), not batched, shuffled through a buffer of 1,024
            examples.
        policy: the augmentation.
        batch_size: examples per batch.
        seed: seed of all draws and of the shuffling.
        epoch: number of the first epoch.
        pca: the result of `fit_pca(dataset)`; default: the components of ImageNet.
        classes: number of classes. It is required if the policy mixes integer labels, which become (batch, classes).
        cache: None, "decoded" to store decoded images on disk from the first epoch on, or an `augment.Cache`. A cache
            only applies to encoded bytes.
        shuffle: whether to shuffle the examples.

    Raises:
        PolicyError: If the arguments contradict each other, or arrays are not in 0..255.
        tf.errors.InvalidArgumentError: During iteration, if an example cannot be decoded or is not in 0..255, or if a
            mixed label is not a class.

    Example:
        >>> model.fit(augment.pipeline((images, labels), augment.Policy.light(), batch_size=64), epochs=10)
    """
    with tf.device("CPU:0"):
        counter = tf.Variable(epoch, dtype=tf.int64, trainable=False)
    epochs = tf.data.Dataset.from_tensors(0).map(lambda _: counter.assign_add(1) - 1)
    source = as_source(dataset)
    image_type = source.element_spec[0].dtype
    augmentation = _Augmentation(
        policy, seed, image_type, pca or IMAGENET_PCA, classes, _opened_cache(cache, image_type), lead=0
    )
    return _batches(source, Order(epochs, seed, shuffle), batch_size, 0, augmentation)


def epoch(
    dataset: Any,
    policy: Policy,
    *,
    batch_size: int,
    seed: int = 0,
    epoch: Tensor = 0,
    shuffle: bool = True,
    first_batch: Tensor = 0,
    pca: PCA | None = None,
    classes: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Return one epoch of `pipeline` from batch `first_batch` on, with the same batches, as a dataset without state.

    A resumed run can begin at any batch of any epoch without decoding earlier examples. The other arguments are those
    of `pipeline`.

    Args:
        epoch: number of the epoch; may be a tensor.
        first_batch: number of the first batch; may be a tensor.
        shard: (index, count) of one of several machines. The dataset then returns the slice `numpy.array_split(batch,
            count)[index]` of every batch, up to rounding (at most 0.05 of 255), without an empty last slice. Only the
            slice and, for mixing, the example before it are decoded. `dataset` must have random access.

    Raises:
        PolicyError: If the dataset cannot be sharded. Other errors are those of `pipeline`.
    """
    epochs = tf.data.Dataset.from_tensors(tf.cast(epoch, tf.int64))
    source, lead = as_source(dataset), 0
    if shard != (0, 1):
        lead = int(policy.mixes)
        source = Shard.of(source, batch_size, shard, lead=lead)
        batch_size = source.width
    image_type = source.element_spec[0].dtype
    augmentation = _Augmentation(policy, seed, image_type, pca or IMAGENET_PCA, classes, cache=None, lead=lead)
    return _batches(source, Order(epochs, seed, shuffle), batch_size, first_batch, augmentation)


def apply(images: Tensor, policy: Policy, *, seed: int) -> Tensor:
    """Augment a batch (batch, height, width, 1|3|4) in memory, as in epoch 0 of the seed.

    Returns:
        float32 (batch, size, size, 3).

    Raises:
        PolicyError: If the policy mixes, which needs labels, or if values are not in 0..255.

    Example:
        >>> augment.apply(images, augment.Policy(size=96, short_side=(96, 128), rotate=10), seed=1)
    """
    images = tf.convert_to_tensor(images)
    if policy.mixes:
        raise PolicyError(
            "mixup and cutmix need labels; use pipeline, or pass dataclasses.replace(policy, mixup=0, cutmix=0)"
        )
    if images.shape.rank != 4:
        raise PolicyError(f"images have shape {images.shape}; expected (batch, height, width, 1 | 3 | 4)")
    if images.shape[0] == 0:
        return tf.zeros((0, policy.size, policy.size, 3))
    check_images(images)
    return _applied(policy)(images, tf.cast(seed, tf.int64))


@lru_cache(maxsize=64)
def _applied(policy: Policy) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function behind `apply` for a policy, traced only once."""

    def whole(images: Tensor, seed: int) -> Tensor:
        def prepare(index: Tensor, image: Tensor) -> tuple[Region, Tensor]:
            uniform = uniforms(seed, 0, index)
            return fetch(image, policy, uniform), uniform

        examples = tf.data.Dataset.from_tensor_slices(images).enumerate()
        examples = examples.map(tf.autograph.experimental.do_not_convert(prepare), num_parallel_calls=tf.data.AUTOTUNE)
        batches = examples.padded_batch(tf.shape(images, tf.int64)[0], _shapes(policy))
        region, uniform = batches.get_single_element()
        return _rendered(_in_range(region, images.dtype), uniform, policy, IMAGENET_PCA)

    return tf.function(whole, autograph=False)


def centre_crop(image: Tensor, policy: Policy) -> Tensor:
    """Apply a policy without noise, such as `Policy.none()`, to bytes or pixels, also in exported graphs.

    The middle of each range is used.

    Raises:
        PolicyError: If the policy has `extra`, which draws its own noise, or RandAugment, which has no middle.
    """
    if policy.extra is not None or policy.rand_operations:
        raise PolicyError("centre_crop is without noise; set extra=None and rand_operations=0, or use apply")
    uniform = tf.fill(uniforms(0, 0, 0).shape, 0.5)
    region = fetch(image, policy, uniform)
    return render(tf.nest.map_structure(lambda t: t[None], region), uniform[None], policy, IMAGENET_PCA)[0]


def render(region: Region, uniform: Tensor, policy: Policy, pca: PCA, compiled: bool = False) -> Tensor:
    """Return float32 (batch, size, size, 3) in 0..255 of a batch of regions, by one resample and one colour matrix."""

    def finish(images: Tensor, uniform: Tensor) -> Any:
        if policy.colours:
            mean = color.mean(images) if policy.range("contrast") != (1, 1) else tf.zeros(3)
            images = color.apply(images, color.draw_matrix(policy, uniform, mean, pca))
        return images if policy.rand_operations else erase(images, policy, uniform)

    finish = tf.function(finish, jit_compile=True, autograph=False) if compiled else finish
    images = finish(resample(region, policy, uniform, compiled), uniform)
    return erase(operate(images, policy, uniform, compiled), policy, uniform) if policy.rand_operations else images


@lru_cache(maxsize=64)
def _compiled(policy: Policy, pca: PCA) -> Callable[[Region, Tensor], Tensor]:
    """Return `render` as XLA kernels, shared by all pipelines of a policy."""
    return tf.function(lambda region, uniform: render(region, uniform, policy, pca, compiled=True), autograph=False)


def _rendered(region: Region, uniform: Tensor, policy: Policy, pca: PCA) -> Tensor:
    return with_extra(_compiled(policy, pca)(region, uniform), policy)


def _in_range(region: Region, image_type: tf.DType) -> Region:
    """Return the regions of a batch after checking that floating-point values are not in 0..1."""
    return region._replace(pixels=checked_batch(region.pixels)) if image_type.is_floating else region


def with_extra(images: Tensor, policy: Policy) -> Tensor:
    """Apply `policy.extra` to images (batch, size, size, 3), with training=True if it takes that argument."""
    if policy.extra is not None:
        parameters = inspect.signature(getattr(policy.extra, "call", policy.extra)).parameters
        mode = {"training": True} if "training" in parameters else {}
        extra = policy.extra if tf.executing_eagerly() else tf.function(policy.extra)  # enables AutoGraph
        images = tf.cast(extra(images, **mode), tf.float32)
    return tf.ensure_shape(images, (None, policy.size, policy.size, 3))


def _shapes(policy: Policy) -> tuple[Region, tuple[int]]:
    """Return the shapes of (region, draws) in batches; all regions have one shape, so that kernels compile once."""
    return Region(capacity(policy), (3, 2), (2, 3)), (len(SLOTS),)


@dataclass(frozen=True, eq=False)
class _Augmentation:
    """Turn one example, and then a batch, into augmented images.

    Attributes:
        policy: The augmentation.
        seed: Seed of the draws.
        image_type: The type of the dataset's images: encoded bytes or pixels.
        pca: The principal components of the colour offset.
        classes: The number of classes, for mixing.
        cache: The cache of decoded images, or None.
        lead: The number of examples at the start of a batch that are only used for mixing.
    """

    policy: Policy
    seed: int
    image_type: tf.DType
    pca: PCA
    classes: int | None
    cache: Cache | None
    lead: int

    def open(self, image: Tensor, label: Any, epoch: Tensor, index: Tensor) -> tuple[Opened, Any]:
        return open_image(image) if self.cache is None else self.cache.open(image, self.policy), label

    def plan(self, opened_and_label: tuple[Opened, Any], epoch: Tensor, index: Tensor) -> tuple[Any, ...]:
        opened, label = opened_and_label
        uniform = uniforms(self.seed, epoch, index)
        return *plan(self.policy, uniform, opened), uniform, label

    def load(self, cut: Cut, frame: Tensor, matrix: Tensor, uniform: Tensor, label: Any) -> tuple[Region, Tensor, Any]:
        unpack = None if self.cache is None else self.cache.unpack
        pixels = cut_out(cut, self.policy, pixel_type(self.image_type), unpack)
        return Region(pixels, frame, matrix), uniform, label

    def finish(self, region: Region, uniform: Tensor, labels: Any) -> tuple[Tensor, Any]:
        images = _rendered(_in_range(region, self.image_type), uniform, self.policy, self.pca)
        if not self.policy.mixes:
            return images, labels
        images, labels = mix(images, soft_labels(labels, self.classes), self.policy, uniform)
        return images[self.lead :], labels[self.lead :]


def _batches(
    source: Source | Stream, order: Order, batch_size: int, first_batch: Tensor, augmentation: _Augmentation
) -> tf.data.Dataset:
    if batch_size < 1:
        raise PolicyError(f"batch_size is {batch_size}; expected at least 1")
    _, labels = source.element_spec
    for part in tf.nest.flatten(labels):
        if not part.shape.is_fully_defined():
            raise PolicyError(
                f"labels have shape {part.shape}; expected one shape. Pad the labels, or call label.set_shape"
            )
    shapes = (*_shapes(augmentation.policy), tf.nest.map_structure(lambda spec: spec.shape, labels))
    work = Work(augmentation.open, augmentation.plan, augmentation.load, shapes)
    first_batch = tf.cast(first_batch, tf.int64)
    batches = guarded(source, work, replace(order, first=first_batch * batch_size), batch_size)
    finish = tf.autograph.experimental.do_not_convert(augmentation.finish)
    batches = batches.map(finish, num_parallel_calls=3, deterministic=True)
    if source.size is not None:
        count = -(-source.size // batch_size) - first_batch
        batches = batches.apply(tf.data.experimental.assert_cardinality(tf.maximum(count, 0)))
    return batches.prefetch(2)


def _opened_cache(cache: Cache | str | None, image_type: tf.DType) -> Cache | None:
    if cache is None:
        return None
    if cache != "decoded" and not isinstance(cache, Cache):
        raise PolicyError(f'cache is {cache!r}; expected None, "decoded" or an augment.Cache')
    if image_type != tf.string:
        raise PolicyError(
            f"cache is {cache!r}, but the dataset yields decoded pixels ({image_type.name}); expected None. Leave "
            f"out the cache"
        )
    return cache if isinstance(cache, Cache) else Cache()
