"""The classifier as one SavedModel: encoded image bytes in, probabilities out, the very preprocessing of training."""

from pathlib import Path

import keras
import tensorflow as tf

import augment
from recipes.errors import OutputError, RecipesError
from recipes.result import Result


class _Server(tf.Module):
    """The graph that is served: decode → centre crop → network, each image on its own."""

    def __init__(self, result: Result):
        super().__init__()
        self.policy = result.recipe.evaluation_policy
        self.class_names = tf.constant(result.class_names)

    def pixels(self, image_bytes):
        """float32 (batch, size, size, 3), and whether each image could be decoded; zeros where not."""
        count = tf.size(image_bytes)
        tf.debugging.assert_positive(count, "image_bytes is empty; send at least one image")
        size = self.policy.size
        examples = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes)).map(
            lambda i, content: (i, augment.centre_crop(content, self.policy)), num_parallel_calls=tf.data.AUTOTUNE
        )
        # A damaged image drops out of the dataset; the extra example keeps the batch from being empty.
        extra = tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3))))
        readable = examples.ignore_errors().concatenate(extra)
        index, crops = readable.batch(tf.cast(count, tf.int64) + 1).get_single_element()
        crops = tf.scatter_nd(index[:, None], crops, (count + 1, size, size, 3))[:-1]
        return crops, tf.scatter_nd(index[:, None], tf.ones_like(index), (count + 1,))[:-1] > 0


def export(result: Result, directory, *, format: str = "saved_model") -> None:
    """Write a SavedModel that needs nothing but TensorFlow to serve.

    `serving_default` takes image_bytes, a string vector of JPEG, PNG, GIF, BMP or WebP files, and returns
    probabilities (batch, classes), class_names (classes,) and error (batch,), empty where all is well. A damaged image
    has NaN probabilities and its error, and does not disturb the others.

    Raises: OutputError when `directory` is not empty or cannot be written, RecipesError for an unknown format.
    """
    if format != "saved_model":
        raise RecipesError(f"format is {format!r}; expected 'saved_model'")
    if keras.backend.backend() == "torch":
        raise RecipesError("the torch backend cannot write a SavedModel; run the export with KERAS_BACKEND=tensorflow")
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise OutputError(f"{directory} exists and is not empty; choose another folder, such as {directory}-2")
    server = _Server(result)
    archive = keras.export.ExportArchive()
    archive.track(result.model)

    def serving_default(image_bytes):
        images, readable = server.pixels(image_bytes)
        probabilities = result.model(images, training=False)
        nan = tf.fill(tf.shape(probabilities), float("nan"))
        return {
            "probabilities": tf.where(readable[:, None], probabilities, nan),
            "class_names": tf.identity(server.class_names),
            "error": tf.where(readable, "", "not an image that can be decoded (JPEG, PNG, GIF, BMP or WebP)"),
        }

    signature = [tf.TensorSpec([None], tf.string, name="image_bytes")]
    archive.add_endpoint("serving_default", serving_default, signature)
    try:
        archive.write_out(directory, verbose=False)
    except (OSError, tf.errors.OpError) as error:
        raise OutputError(f"{directory} cannot be written: {error}") from error
