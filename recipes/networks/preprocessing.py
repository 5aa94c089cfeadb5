"""What a pretrained network expects of pixels, as layers that make it of 0..255 RGB."""

import importlib
import re

import keras
import numpy as np

from recipes.errors import BackboneError
from recipes.networks.data_format import CHANNELS_LAST

_ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}  # operations, of which layers are no instances


def constructors() -> dict[str, callable]:
    """The networks of keras.applications by name."""
    return {
        name: member
        for name, member in vars(keras.applications).items()
        if name[0].isupper() and callable(member)
    }  # fmt: skip


def constructor_of(model_name: str):
    """The keras.applications constructor that names its models so ("mobilenetv2_0.35_224"), or None."""
    matches = [name for name in constructors() if plain(model_name).startswith(name.lower())]
    return constructors()[max(matches, key=len)] if matches else None


def plain(model_name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", model_name.lower())


def preprocessing_of(model: keras.Model) -> tuple[keras.layers.Layer, ...]:
    """Return the layers from 0..255 RGB to what `model` expects; none where it rescales by itself or is not known.

    What counts is the network whose weights see the pixels first: `model`, or one nested in it. A network of
    keras.applications is known by its name. One of keras-cv without `include_rescaling` takes 0..1.

    Raises: BackboneError for a network of KerasHub, whose preprocessing is in its preset alone, and for one of
        keras.applications that was built without the preprocessing that belongs into it.
    """
    if rescales(model):
        return ()
    model = _first_network(model)
    package = _package(model)
    if package == "keras_hub":
        raise BackboneError(
            f"backbone {model.name} is a {type(model).__name__} of KerasHub, which takes preprocessed images; expected "
            "a model of 0..255 RGB. Put the preprocessing of its preset in front of it: converter = "
            "keras_hub.layers.ImageConverter.from_preset(PRESET); images = keras.Input((None, None, 3)); backbone = "
            "keras.Model(images, network(keras.layers.Rescaling(converter.scale, converter.offset)(images)))"
        )
    if package == "keras_cv":
        takes_0_to_1 = getattr(model, "include_rescaling", None) is False
        return (keras.layers.Rescaling(1 / 255, name="preprocessing"),) if takes_0_to_1 else ()
    constructor = constructor_of(model.name)
    if constructor is None:
        return ()
    layers = preprocessing(constructor, rescales=False)
    if not layers:
        raise BackboneError(
            f"backbone {model.name} has the name of keras.applications.{constructor.__name__}, but not its rescaling; "
            "expected a model of 0..255 RGB. Build it with include_preprocessing=True, or give a model of your own "
            "another name."
        )
    return layers


def _package(model: keras.Model) -> str:
    return type(model).__module__.split(".")[0]


def _first_network(model: keras.Model) -> keras.Model:
    """The network whose weights see the pixels first: `model`, or one nested in it."""
    if _package(model) in ("keras_hub", "keras_cv"):
        return model
    first = next((layer for layer in model.layers if layer.weights), None)
    return _first_network(first) if isinstance(first, keras.Model) else model


def rescales(model: keras.Model) -> bool:
    """Whether `model` changes the scale of the pixels before its first weights."""
    for operation in getattr(model, "operations", model.layers):
        is_layer = isinstance(operation, keras.layers.Layer)
        if isinstance(operation, keras.layers.Rescaling | keras.layers.Normalization):
            return True
        if not is_layer and type(operation).__name__ in _ARITHMETIC:
            return True
        if isinstance(operation, keras.Model) and rescales(operation):
            return True
        if is_layer and operation.weights:
            return False
    return False


def preprocessing(constructor, *, rescales: bool) -> tuple[keras.layers.Layer, ...]:
    """Layers that do what the `preprocess_input` beside `constructor` does to 0..255 RGB.

    Every `preprocess_input` of keras.applications is affine in a pixel's RGB, x ↦ A x + b, so A and b are read off
    four pixels: a Rescaling where A is diagonal, a fixed 3 × 3 Dense where it permutes channels, nothing for identity.
    """
    module = importlib.import_module(constructor.__module__)
    pixels = np.concatenate([np.zeros((1, 3)), 255.0 * np.eye(3)])[None].astype("float32")
    images = module.preprocess_input(pixels.reshape(1, 2, 2, 3).copy(), data_format=CHANNELS_LAST)
    images = np.array(images, "float64").reshape(4, 3)
    offset, matrix = images[0], (images[1:] - images[0]) / 255.0  # row i: the answer to channel i
    if rescales or (np.allclose(matrix, np.eye(3)) and not offset.any()):
        return ()
    if np.allclose(matrix, np.diag(np.diag(matrix))):
        scale = np.diag(matrix)
        uniform = np.ptp(scale) < 1e-9 and np.ptp(offset) < 1e-6
        scale, offset = (float(scale[0]), float(offset[0])) if uniform else (scale.tolist(), offset.tolist())
        return (keras.layers.Rescaling(scale, offset, name="preprocessing"),)
    layer = keras.layers.Dense(3, trainable=False, name="preprocessing")
    layer.build((None, None, None, 3))
    layer.set_weights([matrix, offset])
    return (layer,)
