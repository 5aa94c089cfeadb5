"""The graph that is served: encoded bytes → decode, orient, resize, crop → network → probabilities and names."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

import augment
from recipes.core.output import printable
from recipes.data.header_ops import refusal, why_undecodable
from recipes.evaluation.test_time import Crops, make_crops
from recipes.networks.embedding import features_model
from recipes.networks.fully_convolutional import dense_model, stride
from recipes.runs.record import Record

DAMAGED = "damaged: it is cut short, or holds what cannot be decoded"


@dataclass(frozen=True)
class Options:
    """What is fixed at the export.

    crops:      "auto", 1, 5 or 10, as `Result.predict` takes it.
    top_k:      how many of the most probable classes are named.
    abstain:    `class_name` is empty where the largest probability is below; None: never.
    quantize:   None, "float16" or "int8": how the weights are stored.
    max_pixels: height × width beyond which an image is refused by its header.
    mode:       of several crops, as `Result.evaluate` takes it.
    """

    crops: int | str
    top_k: int
    abstain: float | None
    quantize: str | None
    max_pixels: int
    mode: str = "auto"


class ServedModel(tf.Module):
    """Signatures over one set of weights; see `signatures`."""

    def __init__(self, result: Record, options: Options):
        super().__init__()
        self._result, self._options = result, options
        self._policy = result.recipe.evaluation_policy
        self._looks = looks(result, options.crops, options.mode)
        if self._looks and self._looks.dense:
            self._dense, self._step = dense_model(result.model, self._looks.size), stride(result.model)
        self._features = features_model(result.model)
        self.weights, self._stored = _stored(result.model, options.quantize)
        self._names = np.array([printable(name).encode() for name in result.class_names])

    def signatures(self) -> dict:
        """serving_default and rows (without class_names, which has no row per image): image_bytes, a string vector;
        pixels: uint8 (batch, height, width, 3); features: image_bytes → what the linear classifier sees."""
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")
        rows = tf.function(self._rows, input_signature=[encoded], autograph=False)  # traced once for both

        def with_names(image_bytes):
            return rows(image_bytes) | {"class_names": tf.constant(self._names)}

        found = {"serving_default": (with_names, encoded), "rows": (rows, encoded)}
        found["pixels"] = (self._serve_pixels, pixels)
        if self._features is not None:
            found["features"] = (self._serve_features, encoded)
        return {
            name: tf.function(call, input_signature=[spec], autograph=False) for name, (call, spec) in found.items()
        }

    def _rows(self, image_bytes):
        if self._looks is None:
            images, error = self._opened(image_bytes, self._centre, tf.zeros(self._crop_shape))
            return self._told(self._run(self._result.model, images), error)
        nothing = tf.io.serialize_tensor(tf.zeros((8, 8, 3), tf.uint8))
        opener = self._looks.opener
        packed, error = self._opened(image_bytes, lambda x: tf.io.serialize_tensor(opener.open(x)), nothing)
        return self._told(self._averaged(packed), error)

    def _serve_pixels(self, pixels):
        check = tf.debugging.assert_positive(tf.size(pixels), "pixels are empty; send at least one image")
        with tf.control_dependencies([check]):
            images = tf.data.Dataset.from_tensor_slices(pixels)
        count = tf.shape(pixels, tf.int64)[0]
        if self._looks is None:
            crops = images.map(self._centre, num_parallel_calls=tf.data.AUTOTUNE).batch(count).get_single_element()
            found = self._run(self._result.model, crops)
        else:
            opener = self._looks.opener
            packed = images.map(lambda x: tf.io.serialize_tensor(opener.open(x))).batch(count).get_single_element()
            found = self._averaged(packed)
        error = tf.fill(tf.shape(found)[:1], "")
        return self._told(found, error) | {"class_names": tf.constant(self._names)}

    def _serve_features(self, image_bytes):
        images, error = self._opened(image_bytes, self._centre, tf.zeros(self._crop_shape))
        features = self._run(self._features, images)
        return {"features": _nan_where_refused(features, error), "error": error}

    @property
    def _crop_shape(self):
        return self._policy.size, self._policy.size, 3

    def _centre(self, image):
        return augment.centre_crop(image, self._policy)

    def _opened(self, image_bytes, prepare, nothing):
        """`prepare` of every image, `nothing` where that cannot be done, and errors (batch,), empty where it can."""
        count = tf.size(image_bytes)
        check = tf.debugging.assert_positive(count, "image_bytes is empty; send at least one image")

        def one(index, content):
            why = refusal(content, self._options.max_pixels)
            return index, why, tf.cond(tf.equal(why, ""), lambda: prepare(content), lambda: nothing)

        with tf.control_dependencies([check]):
            images = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
        # A damaged image drops out of the dataset; the extra example keeps the batch from being empty.
        extra = tf.data.Dataset.from_tensors((count, tf.constant(""), nothing))
        readable = images.map(one, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().concatenate(extra)
        index, why, prepared = readable.batch(tf.cast(count, tf.int64) + 1).get_single_element()
        error = tf.tensor_scatter_nd_update(tf.fill([count + 1], DAMAGED), index[:, None], why)[:-1]
        dropped = tf.equal(error, DAMAGED)
        error = tf.cond(tf.reduce_any(dropped), lambda: _named(image_bytes, error, dropped), lambda: error)
        at = tf.tensor_scatter_nd_update(
            tf.fill([count + 1], tf.size(index) - 1), index[:, None], tf.range(tf.size(index))
        )
        return tf.gather(prepared, at[:-1]), error

    def _averaged(self, packed):
        """(batch, classes): the mean over the crops of each image on its own, as `Result.probabilities` takes it."""
        crops, model = self._looks, self._result.model

        def one(content):
            pixels = tf.io.parse_tensor(content, tf.uint8)
            pixels.set_shape((None, None, 3))
            total, weight = 0.0, 0.0
            if crops.grid:
                share = len(crops.grid.scales)
                total += share * tf.reduce_mean(self._run(model, crops.grid(pixels)), 0)
                weight += share
            for scale in crops.dense:
                view = augment.whole(pixels, scale, self._step)[None]
                both = tf.concat([view, view[:, :, ::-1]], 0) if crops.mirror else view
                total += tf.reduce_mean(self._run(self._dense, both), (0, 1, 2))
                weight += 1
            return total / weight

        return tf.map_fn(one, packed, fn_output_signature=tf.TensorSpec([len(self._names)], tf.float32))

    def _run(self, model, images):
        """`model` at the weights as they are stored."""
        if not self._stored:
            return model(images, training=False)
        with keras.StatelessScope(state_mapping=[(variable, read()) for variable, read in self._stored]):
            return model(images, training=False)

    def _told(self, probabilities, error):
        top, best = tf.math.top_k(probabilities, self._options.top_k)
        names, good = tf.gather(tf.constant(self._names), best), tf.equal(error, "")
        sure = good if self._options.abstain is None else good & (top[:, 0] >= self._options.abstain)
        return {
            "probabilities": _nan_where_refused(probabilities, error),
            "class_name": tf.where(sure, names[:, 0], ""),
            "top_names": tf.where(good[:, None], names, ""),
            "top_probabilities": _nan_where_refused(top, error),
            "error": error,
        }


def looks(result: Record, crops, mode: str = "auto") -> Crops | None:
    """How the images are looked at; None for the one plain crop."""
    crops, scales = result.crop_set(crops, None)
    return None if crops == 1 and scales is None else make_crops(result.model, result.recipe, crops, scales, mode)


def _named(image_bytes, error, dropped):
    """`error` with the names of formats that are not supported, among the images that could not be decoded."""
    names = tf.map_fn(lambda content: why_undecodable(content, DAMAGED), tf.boolean_mask(image_bytes, dropped))
    return tf.tensor_scatter_nd_update(error, tf.where(dropped), names)


def _nan_where_refused(rows, error):
    return tf.where(tf.equal(error, "")[:, None], rows, tf.fill(tf.shape(rows), float("nan")))


def _stored(model: keras.Model, quantize: str | None):
    """The variables to write, and per model variable how to read it back; an empty list where they are its own.

    Kernels are stored as "float16", or as "int8" with one scale per output channel: w ≈ scale · q, |q| ≤ 127; biases
    and batch statistics stay in float32.
    """
    if quantize is None:
        return [variable.value for variable in model.variables], []
    kept, read = [], []
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable.value)
        if value.ndim < 2 or value.dtype != np.float32:
            kept.append(tf.Variable(value, trainable=False))
            read.append((variable, kept[-1].read_value))
        elif quantize == "float16":
            kept.append(tf.Variable(value.astype(np.float16), trainable=False))
            read.append((variable, lambda half=kept[-1]: tf.cast(half, tf.float32)))
        else:
            scale = np.maximum(np.abs(value).max(tuple(range(value.ndim - 1)), keepdims=True), 1e-12) / 127
            kept += [
                tf.Variable(np.round(value / scale).astype(np.int8), trainable=False),
                tf.Variable(scale.astype(np.float32), trainable=False),
            ]
            read.append((variable, lambda q=kept[-2], s=kept[-1]: tf.cast(q, tf.float32) * s))
    return kept, read
