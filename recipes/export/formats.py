"""Write the classifier in other formats: float32 RGB (batch, size, size, 3) in 0..255 → probabilities."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes.errors import RecipesError
from recipes.runs.record import Record

FILES = {"keras": "model.keras", "onnx": "model.onnx", "litert": "model.tflite"}
QUANTIZED = {"saved_model": (None, "float16", "int8"), "litert": (None, "float16", "int8")}
_NEEDED = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert",)}
_OPSET = 18
_CALIBRATION = 100  # images


def check_installed(kind: str) -> None:
    """Check that the packages that write and prove the format `kind` are installed.

    Raises:
        RecipesError: If a package is missing.
    """
    missing = [name for name in _NEEDED.get(kind, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise RecipesError(
            f"format {kind!r} needs {', '.join(missing)}; install with pip install 'keras-recipes[{kind}]'",
            code="export.not_installed",
            packages=missing,
        )


def write(result: Record, kind: str, path: Path, quantize: str | None, calibration: np.ndarray | None) -> None:
    """Write the network of `result` to the file `path`.

    Args:
        result: The classifier.
        kind: "keras", "onnx" or "litert".
        path: The file.
        quantize: None, "float16" or "int8"; for "litert".
        calibration: float32 (n, size, size, 3), images that scale the int8 activations of LiteRT; otherwise unused.

    Raises:
        RecipesError: If the format cannot represent the network; the message names the other formats.
    """
    try:
        if kind == "keras":
            result.model.save(path)
        elif kind == "onnx":
            _onnx(result, path)
        else:
            _litert(result, path, quantize, calibration)
    except Exception as error:  # converters may raise any exception
        others = " and ".join(repr(name) for name in ("saved_model", "keras") if name != kind)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise RecipesError(
            f"{result.backbone} cannot be written as {kind}: {reason}; it can be exported as {others}",
            code="export.not_representable",
            format=kind,
            reason=reason,
        ) from error


def _onnx(result: Record, path: Path) -> None:
    import onnx
    import tf2onnx

    function, spec = _pixel_function(result, batch=None)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=_OPSET)
    inputs = [entry.name for entry in proto.graph.input]
    if inputs != ["pixels"]:
        raise ValueError(f"the converter turned the constants {inputs[1:]} into inputs")
    onnx.checker.check_model(proto)  # the converter only logs unknown operations
    path.write_bytes(proto.SerializeToString())


def _litert(result: Record, path: Path, quantize: str | None, calibration: np.ndarray | None) -> None:
    function, _ = _pixel_function(result, batch=1)
    module: Any = tf.Module()
    module.weights = [variable.value for variable in result.model.variables]
    with tempfile.TemporaryDirectory(prefix="recipes-litert-") as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": function})
        # allows only built-in operations, so that no Flex delegate is needed
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        elif quantize == "int8" and calibration is not None:
            images = calibration[:_CALIBRATION]
            converter.representative_dataset = lambda: ({"pixels": image[None]} for image in images)
        path.write_bytes(converter.convert())


def _pixel_function(result: Record, batch: int | None) -> tuple[Any, tf.TensorSpec]:
    size = result.recipe.evaluation_policy.size
    spec = tf.TensorSpec((batch, size, size, 3), tf.float32, name="pixels")

    @tf.function(input_signature=[spec], autograph=False)
    def probabilities(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        with _constant_normalization(result.model):
            return {"probabilities": result.model(pixels, training=False)}

    return probabilities, spec


@contextmanager
def _constant_normalization(model: keras.Model) -> Iterator[None]:
    """Make the means and variances of Normalization layers NumPy arrays, which become constants of a traced graph.

    Tensors would be captured from outside the graph, and converters would turn them into inputs.
    """
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization)]
    before = [(layer.mean, layer.variance) for layer in layers]
    try:
        for layer in layers:
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        yield
    finally:
        for layer, (mean, variance) in zip(layers, before, strict=True):
            layer.mean, layer.variance = mean, variance
