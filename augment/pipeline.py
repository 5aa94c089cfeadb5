"""From encoded bytes or pixels to augmented batches; every draw is a function of (seed, epoch, example index)."""

from functools import lru_cache

import tensorflow as tf

from augment import color
from augment.draws import uniforms
from augment.pca import IMAGENET_PCA, PCA
from augment.policy import Policy
from augment.region import capacity, fetch
from augment.resample import resample
from augment.source import Source


def render(region, uniform, policy: Policy, pca: PCA = IMAGENET_PCA) -> tf.Tensor:
    """float32 (batch, size, size, 3) of 0..255: one resample, one colour matrix."""
    images = resample(region, policy, uniform)
    if policy.colours:
        images = color.apply(images, color.draw_matrix(policy, uniform, tf.reduce_mean(images, (1, 2)), pca))
    return images


@lru_cache(maxsize=32)
def _compiled(policy: Policy, pca: PCA):
    """`render` as one XLA kernel, shared by all pipelines of that policy."""
    return tf.function(lambda region, uniform: render(region, uniform, policy, pca), jit_compile=True)


def centre_crop(image, policy: Policy) -> tf.Tensor:
    """What `policy` makes of one image without noise; needs a policy such as `Policy.none()`. Fit for exported graphs."""
    uniform = tf.fill(uniforms(0, 0, 0).shape, 0.5)
    region = fetch(image, policy, uniform)
    return render(tf.nest.map_structure(lambda t: t[None], region), uniform[None], policy)[0]


def epoch(
    source: Source,
    policy: Policy,
    *,
    batch_size: int,
    seed: int = 0,
    epoch=0,
    shuffle: bool = True,
    first_batch=0,
    pca=None,
):
    """One pass over `source` as a tf.data.Dataset of (float32 images 0..255, labels)."""
    epochs = tf.data.Dataset.from_tensors(tf.cast(epoch, tf.int64))
    first = tf.cast(first_batch, tf.int64) * batch_size
    examples = source.examples(epochs, seed=seed, shuffle=shuffle, first=first)

    def prepare(position, number, index):
        image, label = source.read(index)
        uniform = uniforms(seed, number, index)
        return fetch(image, policy, uniform), uniform, label

    kernel = _compiled(policy, pca or IMAGENET_PCA)
    ds = examples.take(source.size - first).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    spec = ds.element_spec
    shapes = (
        tf.nest.map_structure(lambda s: s.shape, spec[0])._replace(pixels=(capacity(policy),)),
        spec[1].shape,
        spec[2].shape,
    )
    return (
        ds.padded_batch(batch_size, padded_shapes=shapes)
        .map(lambda r, u, l: (kernel(r, u), l), num_parallel_calls=2)
        .prefetch(2)
    )
