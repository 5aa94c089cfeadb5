"""From encoded bytes or pixels to augmented batches; every draw is a function of (seed, epoch, example index)."""

import inspect
from functools import lru_cache

import tensorflow as tf

from . import color
from .cache import Cache
from .draws import SLOTS, uniforms
from .guard import guarded
from .mix import erase, mix, soft_labels
from .pca import IMAGENET_PCA, PCA
from .pixel_range import check_images, checked_batch
from .policy import Policy, PolicyError
from .region import Region, capacity, cut_out, fetch, open_image, pixel_type, plan
from .resample import resample
from .source import Shard, as_source


def pipeline(dataset, policy: Policy, *, batch_size, seed=0, epoch=0, pca=None, classes=None, cache=None, shuffle=True):
    """Augmented batches for `model.fit`: a tf.data.Dataset of (float32 images 0..255, labels).

    Each pass over it is the next epoch, beginning with `epoch`. What an example looks like is a function of (seed,
    epoch, its index) alone, but for mixing, whose partner is the neighbour in the batch: a new pipeline with epoch=k
    repeats epoch k of an old one bit for bit, given the same machine and batch size. Another batch size or shard
    rounds differently, by at most 0.05 of 255. Its iterators hold a counter and cannot be saved by
    tf.train.Checkpoint; a run that is resumed goes on with `epoch(…, epoch=k, first_batch=n)`.

    dataset: (images, labels) arrays, an `augment.Source` (both shuffled as a whole), or a tf.data.Dataset of (encoded
        bytes | image (height, width, 1|3|4), label), not batched, shuffled through a buffer of 1,024 examples.
    pca:     what `fit_pca(dataset)` found; default: ImageNet's.
    classes: number of classes; needed where the policy mixes integer labels, which then come out as (batch, classes).
    cache:   None; "decoded" keeps decoded images on disk from the first epoch on; or an `augment.Cache`. For encoded
        bytes only.

    Raises: PolicyError here, also for arrays that are not in 0..255; tf.errors.InvalidArgumentError, while iterating,
        naming the example that cannot be decoded or is not in 0..255, and for labels that are no class where the policy
        mixes. A truncated JPEG fails only where the crop reaches what is missing, so it may pass for epochs:
        `recipes.audit` finds such files beforehand.

    >>> model.fit(augment.pipeline((images, labels), augment.Policy.light(), batch_size=64), epochs=10)
    """
    with tf.device("CPU:0"):
        counter = tf.Variable(epoch, dtype=tf.int64, trainable=False)
    epochs = tf.data.Dataset.from_tensors(0).map(lambda _: counter.assign_add(1) - 1)
    return _batches(as_source(dataset), policy, epochs, batch_size, seed, 0, shuffle, pca, classes, cache)


def epoch(
    dataset, policy: Policy, *, batch_size, seed=0, epoch=0, shuffle=True, first_batch=0, pca=None, classes=None,
    shard=(0, 1),
):  # fmt: skip
    """One epoch of `pipeline`, from batch `first_batch` on: the same batches, in a dataset that has no state.

    epoch and first_batch may be tensors: a resumed run begins at any batch of any epoch without decoding what comes
    before it.

    shard: (index, count): of every batch the slice that `numpy.array_split(batch, count)[index]` is, but for rounding
        (at most 0.05 of 255), for one of several machines; nothing but that is decoded, and where images are mixed the
        one before it. A last batch that leaves nothing for the slice is not there. For a dataset with random access.
    """
    epochs = tf.data.Dataset.from_tensors(tf.cast(epoch, tf.int64))
    source = as_source(dataset)
    if shard != (0, 1):
        source = Shard.of(source, batch_size, shard, lead=int(policy.mixes))
        batch_size = source.width
    return _batches(source, policy, epochs, batch_size, seed, first_batch, shuffle, pca, classes, None)


def apply(images, policy: Policy, *, seed: int) -> tf.Tensor:
    """float32 (batch, size, size, 3) of a batch (batch, height, width, 1|3|4) in memory, in epoch 0 of that seed.

    Raises: PolicyError for a policy that mixes, for there are no labels to mix, and for values that are not in 0..255.

    >>> augment.apply(images, augment.Policy(size=96, short_side=(96, 128), rotate=10), seed=1)
    """
    images = tf.convert_to_tensor(images)
    if policy.mixes:
        raise PolicyError(
            "mixup and cutmix need labels: use pipeline, or dataclasses.replace(policy, mixup=0, cutmix=0)"
        )
    if images.shape.rank != 4:
        raise PolicyError(f"images have shape {images.shape}; expected (batch, height, width, 1 | 3 | 4)")
    if images.shape[0] == 0:
        return tf.zeros((0, policy.size, policy.size, 3))
    check_images(images)
    return _applied(policy)(images, tf.cast(seed, tf.int64))


@lru_cache(maxsize=64)
def _applied(policy: Policy):
    """`apply` of that policy, traced once and not at every call."""

    def whole(images, seed):
        def prepare(index, image):
            uniform = uniforms(seed, 0, index)
            return fetch(image, policy, uniform), uniform

        examples = tf.data.Dataset.from_tensor_slices(images).enumerate()
        examples = examples.map(tf.autograph.experimental.do_not_convert(prepare), num_parallel_calls=tf.data.AUTOTUNE)
        batches = examples.padded_batch(tf.shape(images, tf.int64)[0], _shapes(policy))
        region, uniform = batches.get_single_element()
        return _rendered(_in_range(region, images.dtype), uniform, policy, IMAGENET_PCA)

    return tf.function(whole, autograph=False)


def centre_crop(image, policy: Policy) -> tf.Tensor:
    """What a policy without noise, such as `Policy.none()`, makes of bytes or pixels; fit for exported graphs.

    Ranges give their middle.

    Raises: PolicyError for a policy with `extra`, which draws its own noise.
    """
    if policy.extra is not None:
        raise PolicyError("centre_crop is without noise; use dataclasses.replace(policy, extra=None), or apply")
    uniform = tf.fill(uniforms(0, 0, 0).shape, 0.5)
    region = fetch(image, policy, uniform)
    return render(tf.nest.map_structure(lambda t: t[None], region), uniform[None], policy, IMAGENET_PCA)[0]


def render(region, uniform, policy: Policy, pca: PCA, compiled: bool = False) -> tf.Tensor:
    """float32 (batch, size, size, 3) of 0..255 of a batch of regions: one resample, one colour matrix."""

    def finish(images, uniform):
        if policy.colours:
            mean = color.mean(images) if policy.range("contrast") != (1, 1) else tf.zeros(3)
            images = color.apply(images, color.draw_matrix(policy, uniform, mean, pca))
        return erase(images, policy, uniform) if policy.erase else images

    if compiled:
        finish = tf.function(finish, jit_compile=True, autograph=False)
    return finish(resample(region, policy, uniform, compiled), uniform)


@lru_cache(maxsize=64)
def _compiled(policy: Policy, pca: PCA):
    """`render` as XLA kernels, shared by all pipelines of that policy."""
    return tf.function(lambda region, uniform: render(region, uniform, policy, pca, compiled=True), autograph=False)


def _rendered(region, uniform, policy, pca):
    images = _compiled(policy, pca)(region, uniform)
    return with_extra(images, policy)


def _in_range(region, image_type: tf.DType) -> Region:
    """Return regions of a batch whose images' values are floats only if those are not of 0..1."""
    return region._replace(pixels=checked_batch(region.pixels)) if image_type.is_floating else region


def with_extra(images, policy: Policy) -> tf.Tensor:
    """`policy.extra` of images (batch, size, size, 3), in training mode where it knows one."""
    if policy.extra is not None:
        known = inspect.signature(getattr(policy.extra, "call", policy.extra)).parameters
        mode = {"training": True} if "training" in known else {}
        images = tf.cast(policy.extra(images, **mode), tf.float32)
    return tf.ensure_shape(images, (None, policy.size, policy.size, 3))


def _shapes(policy):
    """Of (region, draws) in batches: all regions have one shape, the one that the compiled kernels see."""
    return Region(capacity(policy), (3, 2), (2, 3)), (len(SLOTS),)


def _batches(source, policy, epochs, batch_size, seed, first_batch, shuffle, pca, classes, cache):
    if batch_size < 1:
        raise PolicyError(f"batch_size is {batch_size}; expected at least 1")
    if cache not in (None, "decoded") and not isinstance(cache, Cache):
        raise PolicyError(f'cache is {cache!r}; expected None, "decoded" or an augment.Cache')
    image, labels = source.element_spec
    dtype, cached = pixel_type(image.dtype), cache is not None
    if cached and image.dtype != tf.string:
        raise PolicyError(
            f"cache is {cache!r}, but the dataset yields pixels ({image.dtype.name}), which are decoded already; leave "
            "it out"
        )
    for part in tf.nest.flatten(labels):
        if not part.shape.is_fully_defined():
            raise PolicyError(
                f"labels have shape {part.shape}; expected one shape for all: pad them, or call "
                "label.set_shape where they are made"
            )
    cache = Cache() if cache == "decoded" else cache
    first = tf.cast(first_batch, tf.int64) * batch_size
    lead = getattr(source, "lead", 0)

    def look(image, label, epoch, index):
        return cache.open(image, policy) if cached else open_image(image), label

    def arrange(opened_and_label, epoch, index):
        opened, label = opened_and_label
        uniform = uniforms(seed, epoch, index)
        return *plan(policy, uniform, opened), uniform, label

    def load(cut, frame, matrix, uniform, label):
        return Region(cut_out(cut, policy, dtype, cache.unpack if cached else None), frame, matrix), uniform, label

    @tf.autograph.experimental.do_not_convert
    def finish(region, uniform, labels):
        images = _rendered(_in_range(region, image.dtype), uniform, policy, pca or IMAGENET_PCA)
        if not policy.mixes:
            return images, labels
        images, labels = mix(images, soft_labels(labels, classes), policy, uniform)
        return images[lead:], labels[lead:]

    shapes = (*_shapes(policy), tf.nest.map_structure(lambda spec: spec.shape, labels))
    order = {"epochs": epochs, "seed": seed, "shuffle": shuffle, "first": first}
    batches = guarded(source, look, batch_size, arrange=arrange, finish=load, shapes=shapes, **order)
    batches = batches.map(finish, num_parallel_calls=3, deterministic=True)
    if source.size is not None:
        count = -(-source.size // batch_size) - tf.cast(first_batch, tf.int64)
        batches = batches.apply(tf.data.experimental.assert_cardinality(tf.maximum(count, 0)))
    return batches.prefetch(2)
