"""Build the served graph: encoded bytes → decode, orient, resize, crop → network → probabilities and names."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.core.output import printable
from recipes.data.header_ops import refusal, why_undecodable
from recipes.evaluation.test_time import Crops, make_crops
from recipes.export.options import ExportOptions
from recipes.networks.embedding import features_model
from recipes.networks.fully_convolutional import dense_model, stride
from recipes.runs.record import Record

DAMAGED = "damaged: the file is cut short or cannot be decoded"

# maps a variable of the model to a function that reads its value
Weights = list[tuple[keras.Variable, Callable[[], tf.Tensor]]]


class ServedModel(tf.Module):
    """Hold the weights and build the signatures of a SavedModel; see `signatures`."""

    def __init__(self, result: Record, options: ExportOptions):
        super().__init__()
        self._result, self._options = result, options
        self._policy = result.recipe.evaluation_policy
        crops, scales = result.crop_set(options.crops, None)
        several = crops != 1 or scales is not None  # None for the centre crop alone
        self._crops = make_crops(result.model, result.recipe, crops, scales, options.mode) if several else None
        if self._crops and self._crops.dense:
            self._dense, self._step = dense_model(result.model, self._crops.size), stride(result.model)
        self._features = features_model(result.model)
        self.weights, self._stored = _stored(result.model, options.quantize)
        self._names = np.array([printable(name).encode() for name in result.class_names])

    def signatures(self) -> dict[str, Any]:
        """Return the functions of the SavedModel by name.

        Returns:
            serving_default: image_bytes, a string vector → the outputs of `rows` and class_names.
            rows: The outputs of `serving_default` without class_names, which has no row per image.
            pixels: uint8 (batch, height, width, 3) → the outputs of serving_default.
            features: image_bytes → the input of the linear classifier; absent if the model has no such layer.
        """
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        pixels = tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels")
        rows = tf.function(self._rows, input_signature=[encoded], autograph=False)  # traced once for both signatures

        def with_names(image_bytes: tf.Tensor) -> dict:
            return rows(image_bytes) | {"class_names": tf.constant(self._names)}

        found = {"serving_default": (with_names, encoded), "rows": (rows, encoded)}
        found["pixels"] = (self._serve_pixels, pixels)
        if self._features is not None:
            found["features"] = (self._serve_features, encoded)
        return {
            name: tf.function(call, input_signature=[spec], autograph=False) for name, (call, spec) in found.items()
        }

    def _rows(self, image_bytes: tf.Tensor) -> dict:
        crops = self._crops
        if crops is None:
            images, error = self._opened(image_bytes, self._centre, tf.zeros(self._crop_shape))
            return self._outputs(self._run(self._result.model, images), error)
        nothing = tf.io.serialize_tensor(tf.zeros((8, 8, 3), tf.uint8))
        packed, error = self._opened(image_bytes, lambda x: tf.io.serialize_tensor(crops.opener.open(x)), nothing)
        return self._outputs(self._averaged(crops, packed), error)

    def _serve_pixels(self, pixels: tf.Tensor) -> dict:
        crops = self._crops
        check = tf.debugging.assert_positive(tf.size(pixels), "pixels is empty; send at least one image")
        with tf.control_dependencies([check]):
            images = tf.data.Dataset.from_tensor_slices(pixels)
        count = tf.shape(pixels, tf.int64)[0]
        if crops is None:
            views = images.map(self._centre, num_parallel_calls=tf.data.AUTOTUNE).batch(count).get_single_element()
            found = self._run(self._result.model, views)
        else:
            packed = images.map(lambda x: tf.io.serialize_tensor(crops.opener.open(x)))
            found = self._averaged(crops, packed.batch(count).get_single_element())
        error = tf.fill(tf.shape(found)[:1], "")
        return self._outputs(found, error) | {"class_names": tf.constant(self._names)}

    def _serve_features(self, image_bytes: tf.Tensor) -> dict:
        images, error = self._opened(image_bytes, self._centre, tf.zeros(self._crop_shape))
        features = self._run(self._features, images)
        return {"features": _nan_where_rejected(features, error), "error": error}

    @property
    def _crop_shape(self) -> tuple[int, int, int]:
        return self._policy.size, self._policy.size, 3

    def _centre(self, image: tf.Tensor) -> tf.Tensor:
        return augment.centre_crop(image, self._policy)

    def _opened(
        self, image_bytes: tf.Tensor, prepare: Callable[[tf.Tensor], tf.Tensor], nothing: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `prepare` of every image, or `nothing` if that fails, and errors (batch,), empty without an error."""
        count = tf.size(image_bytes)
        check = tf.debugging.assert_positive(count, "image_bytes is empty; send at least one image")

        def one(index: tf.Tensor, content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            why = refusal(content, self._options.max_pixels)
            return index, why, tf.cond(tf.equal(why, ""), lambda: prepare(content), lambda: nothing)

        with tf.control_dependencies([check]):
            images = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
        # A damaged image is dropped from the dataset; an extra example prevents an empty batch.
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

    def _averaged(self, crops: Crops, packed: tf.Tensor) -> tf.Tensor:
        """Return the mean (batch, classes) over each image's crops, as `Result.probabilities` computes it."""
        model = self._result.model

        def one(content: tf.Tensor) -> tf.Tensor:
            pixels: Any = tf.io.parse_tensor(content, tf.uint8)
            pixels.set_shape((None, None, 3))
            total: Any = 0.0
            weight = 0.0
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

    def _run(self, model: keras.Model, images: tf.Tensor) -> tf.Tensor:
        """Call `model` with the stored weights."""
        if not self._stored:
            return model(images, training=False)
        with keras.StatelessScope(state_mapping=[(variable, read()) for variable, read in self._stored]):
            return model(images, training=False)

    def _outputs(self, probabilities: tf.Tensor, error: tf.Tensor) -> dict:
        top, best = tf.math.top_k(probabilities, self._options.top_k)
        names, good = tf.gather(tf.constant(self._names), best), tf.equal(error, "")
        sure = good if self._options.abstain is None else good & (top[:, 0] >= self._options.abstain)
        return {
            "probabilities": _nan_where_rejected(probabilities, error),
            "class_name": tf.where(sure, names[:, 0], ""),
            "top_names": tf.where(good[:, None], names, ""),
            "top_probabilities": _nan_where_rejected(top, error),
            "error": error,
        }


def _named(image_bytes: tf.Tensor, error: tf.Tensor, dropped: tf.Tensor) -> tf.Tensor:
    """Add the names of unsupported formats to the errors of the images that could not be decoded."""
    names = tf.map_fn(lambda content: why_undecodable(content, DAMAGED), tf.boolean_mask(image_bytes, dropped))
    return tf.tensor_scatter_nd_update(error, tf.where(dropped), names)


def _nan_where_rejected(rows: tf.Tensor, error: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.equal(error, "")[:, None], rows, tf.fill(tf.shape(rows), float("nan")))


def _stored(model: keras.Model, quantize: str | None) -> tuple[list[tf.Variable], Weights]:
    """Return the variables to write, and functions that read the values of the model's variables from them.

    Without `quantize`, the variables are the model's own, and the second list is empty. With "float16", kernels are
    stored as float16. With "int8", they have one scale per output channel: w ≈ scale · q, |q| ≤ 127. Biases and batch
    statistics stay in float32.
    """
    if quantize is None:
        return [variable.value for variable in model.variables], []
    written: list[tf.Variable] = []
    weights: Weights = []

    def store(value: Any) -> tf.Variable:  # TensorFlow's stub does not list arrays
        written.append(tf.Variable(value, trainable=False))
        return written[-1]

    for variable in model.variables:
        value = np.asarray(keras.ops.convert_to_numpy(variable.value))
        if value.ndim < 2 or value.dtype != np.float32:
            weights.append((variable, store(value).read_value))
        elif quantize == "float16":
            half = store(value.astype(np.float16))
            weights.append((variable, lambda half=half: tf.cast(half, tf.float32)))
        else:
            scale = np.maximum(np.abs(value).max(tuple(range(value.ndim - 1)), keepdims=True), 1e-12) / 127
            q, s = store(np.round(value / scale).astype(np.int8)), store(scale.astype(np.float32))
            weights.append((variable, lambda q=q, s=s: tf.cast(q, tf.float32) * s))
    return written, weights
