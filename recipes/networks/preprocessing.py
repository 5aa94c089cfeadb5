"""Build the preprocessing of a pretrained network, as layers from 0..255 RGB to its input."""

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from recipes.errors import BackboneError
from recipes.networks.data_format import CHANNELS_LAST

_ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}  # operations that are not layers


def constructors() -> dict[str, Callable[..., keras.Model]]:
    """Return the networks of keras.applications by name."""
    members: Mapping[str, Any] = vars(keras.applications)
    return {name: members[name] for name in members if name[0].isupper() and callable(members[name])}


def constructor_of(model_name: str) -> Callable[..., keras.Model] | None:
    """Return the keras.applications constructor for the name of a model, such as "mobilenetv2_0.35_224", or None."""
    matches = [name for name in constructors() if plain(model_name).startswith(name.lower())]
    return constructors()[max(matches, key=len)] if matches else None


def plain(model_name: str) -> str:
    """Return the name's letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", model_name.lower())


def preprocessing_of(model: keras.Model) -> tuple[keras.layers.Layer, ...]:
    """Return the layers from 0..255 RGB to the input of `model`, [] if the model rescales its input or is unknown.

    The layers depend on the network whose weights process the pixels first: `model`, or a network nested in it. A
    network of keras.applications is recognised by its name. A network of keras-cv without `include_rescaling` expects
    0..1.

    Raises:
        BackboneError: If the network is from KerasHub, where only the preset contains the preprocessing. Also if it is
            from keras.applications but was built without its own preprocessing.
    """
    if rescales(model):
        return ()
    model = _first_network(model)
    package = _package(model)
    if package == "keras_hub":
        raise BackboneError(
            f"backbone {model.name} is a {type(model).__name__} of KerasHub, which expects preprocessed images; a "
            "backbone must accept 0..255 RGB. Put the preprocessing of its preset in front of it: converter = "
            "keras_hub.layers.ImageConverter.from_preset(PRESET); images = keras.Input((None, None, 3)); backbone = "
            "keras.Model(images, network(keras.layers.Rescaling(converter.scale, converter.offset)(images)))",
            code="backbone.keras_hub",
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
            "a backbone must accept 0..255 RGB. Build it with include_preprocessing=True, or give a model of your own "
            "another name.",
            code="backbone.no_rescaling",
        )
    return layers


def _package(model: keras.Model) -> str:
    return type(model).__module__.split(".")[0]


def _first_network(model: keras.Model) -> keras.Model:
    """Return the network whose weights process the pixels first: `model`, or a network nested in it."""
    if _package(model) in ("keras_hub", "keras_cv"):
        return model
    first = next((layer for layer in model.layers if layer.weights), None)
    return _first_network(first) if isinstance(first, keras.Model) else model


def rescales(model: keras.Model) -> bool:
    """Return whether `model` changes the scale of the pixels before its first weights."""
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


def preprocessing(constructor: Callable[..., keras.Model], *, rescales: bool) -> tuple[keras.layers.Layer, ...]:
    """Return layers that compute the `preprocess_input` of the constructor's module on 0..255 RGB.

    Every `preprocess_input` of keras.applications is affine in the RGB values of a pixel, x ↦ A x + b, so four pixels
    determine A and b. The layers are a Rescaling if A is diagonal, a fixed 3 × 3 Dense if A permutes channels, and none
    for the identity.

    Args:
        constructor: A function of keras.applications.
        rescales: Whether the network rescales its input itself, so that no layers are needed.
    """
    module = importlib.import_module(constructor.__module__)
    pixels = np.concatenate([np.zeros((1, 3)), 255.0 * np.eye(3)])[None].astype("float32")
    images = module.preprocess_input(pixels.reshape(1, 2, 2, 3).copy(), data_format=CHANNELS_LAST)
    images = np.array(images, "float64").reshape(4, 3)
    offset, matrix = images[0], (images[1:] - images[0]) / 255.0  # row i is the effect of channel i
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
