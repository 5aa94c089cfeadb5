"""Load pretrained networks by name, file, model or run, each with its preprocessing."""

import ast
import math
import os
import re
import tempfile
import warnings
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import keras

from recipes.core.devices import accelerator
from recipes.errors import BackboneError, UnsafeFileError
from recipes.networks.data_format import channels_first_layer, channels_last
from recipes.networks.heads import network_of_run, without_head
from recipes.networks.keras_file import load_model
from recipes.networks.preprocessing import constructors, plain, preprocessing, preprocessing_of, rescales
from recipes.networks.stages import operation_nodes

_SET_BY_THE_RECIPE = {"include_top", "input_shape", "input_tensor", "pooling", "classes", "include_preprocessing"}
# NASNet's cells only fit the image size for which they were built
_FIXED_SIZES = {"NASNetMobile": 224, "NASNetLarge": 331}
_NATURAL_SIZES = {"inceptionv3": 299, "inceptionresnetv2": 299, "xception": 299, "nasnetlarge": 331}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network without a classification head, and the layers that convert 0..255 RGB to its input.

    Attributes:
        name: Name given by the user.
        network: Model from preprocessed pixels (batch, height, width, 3) to a feature map or a vector.
        preprocessing: Layers from 0..255 RGB to the network's input; empty if the network contains them.
        size: Natural image size in pixels, which is used if the recipe sets none.
        pretrained: False if the weights are random (weights=None).
    """

    name: str
    network: keras.Model
    preprocessing: tuple[keras.layers.Layer, ...]
    size: int
    pretrained: bool = True

    def with_network(self, network: keras.Model) -> "Backbone":
        return replace(self, network=network)

    def __call__(self, images: Any, network: keras.Model | None = None) -> Any:  # symbolic tensors of any backend
        """Return the outputs of `network` for 0..255 RGB; the default is the network of this backbone."""
        for layer in self.preprocessing:
            images = layer(images)
        return (network or self.network)(images)

    def activations(self, size: int) -> int:
        """Return the bytes of the outputs of all layers for one image in float32."""
        network = self.network
        tensors = [tensor for node in operation_nodes(network) for tensor in node.output_tensors]
        shapes = keras.Model(network.inputs, tensors).compute_output_shape((1, size, size, 3))
        return 4 * sum(math.prod(shape) for shape in shapes)

    @property
    def fixed_size(self) -> int | None:
        """The only image size that the network accepts; None if it accepts any size."""
        return self.network.inputs[0].shape[1]


def default_name() -> str:
    """Return EfficientNetV2B0 if there is a GPU (or TPU), otherwise MobileNetV3Small."""
    return "EfficientNetV2B0" if accelerator() else "MobileNetV3Small"


def resolve(backbone: object) -> Backbone:
    """Load a backbone in any form that the user may give.

    A classification head at the end of the network is removed. For a run, its network and preprocessing are loaded. A
    keras.Model named like a keras.applications network gets the preprocessing of that network unless it rescales its
    input. Any other model must accept 0..255 RGB.

    Args:
        backbone: "auto", a keras.applications constructor call such as "MobileNetV2(alpha=0.35)" (parsed, never
            evaluated), "glyphs", the path of a .keras file, a keras.Model (keras-cv backbones included), or a run: a
            Result, its folder, or its model.keras.

    Raises:
        BackboneError: If the name is unknown, the weights are not available, the input of the model is not images, or
            its preprocessing or features cannot be determined.
    """
    if isinstance(backbone, keras.Model):
        return _from_model(_copy(backbone), backbone.name)
    model, name = getattr(backbone, "model", None), getattr(backbone, "backbone", "")
    if isinstance(model, keras.Model):  # a Result
        return _from_model(_copy(model), f"finetuned {name.removeprefix('finetuned ')}")
    if not isinstance(backbone, str | os.PathLike):
        raise BackboneError(
            f"backbone is a {type(backbone).__name__}; expected a name, a .keras file, a run or a keras.Model",
            code="backbone.type",
            value=backbone,
        )
    name = os.path.expanduser(os.fspath(backbone))
    if name == "auto":
        name = default_name()
    if name == "glyphs":
        return _from_model(_load(Path(__file__).parent / "assets" / "glyphs.keras"), name)
    if name.endswith(".keras"):
        return _from_model(_load(Path(name)), name)
    if os.path.isdir(name) and name not in constructors():
        return _from_model(_load(_model_of_run(Path(name))), name)
    if os.sep in name and "(" not in name:
        raise BackboneError(
            f"backbone {name!r} does not exist; expected a run's folder or a .keras file",
            code="backbone.missing",
            path=name,
        )
    return from_applications(name)


def _model_of_run(folder: Path) -> Path:
    if (folder / "result.json").is_file() and (folder / "model.keras").is_file():
        return folder / "model.keras"
    raise BackboneError(
        f"backbone {str(folder)!r} is a folder, but not the folder of a finished run; expected a run's folder or "
        "a .keras file, such as backbone.keras of `pretrain`",
        code="backbone.folder",
        path=folder,
    )


def parse_call(call: str) -> tuple[str, dict[str, object]]:
    """Return the name and the keyword arguments, all literals, of a constructor call.

    Example:
        >>> parse_call("MobileNetV2(alpha=0.35)")
        ('MobileNetV2', {'alpha': 0.35})

    Raises:
        BackboneError: If the text is not such a call.
    """
    wrong = BackboneError(
        f"backbone {call!r} is not known; expected a constructor call such as 'MobileNetV2(alpha=0.35)', a .keras "
        "file or 'glyphs'",
        code="backbone.call",
        value=call,
    )
    try:
        tree = ast.parse(call, mode="eval").body
    except SyntaxError as error:
        raise wrong from error
    if isinstance(tree, ast.Name):
        return tree.id, {}
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)) or tree.args:
        raise wrong
    arguments = {keyword.arg: keyword.value for keyword in tree.keywords if keyword.arg is not None}
    if len(arguments) < len(tree.keywords):
        raise wrong
    try:
        return tree.func.id, {name: ast.literal_eval(value) for name, value in arguments.items()}
    except (ValueError, TypeError) as error:
        raise wrong from error


def from_applications(call: str) -> Backbone:
    """Return a keras.applications network with ImageNet weights, or with the weights named by `weights=` in the call.

    Raises:
        BackboneError: If the network is unknown, an argument is wrong, or the weights are not available.
    """
    name, arguments = parse_call(call)
    known = constructors()
    if name not in known:
        lower = {other.lower(): other for other in known}
        close = [lower[other] for other in get_close_matches(name.lower(), lower, 4, 0.5)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected one of {', '.join(sorted(known))}"
        raise BackboneError(
            f"keras.applications has no network {name!r}; {hint}", code="backbone.unknown", value=name, close=close
        )
    if clash := sorted(_SET_BY_THE_RECIPE & set(arguments)):
        raise BackboneError(
            f"{call}: the arguments {clash} are set by the recipe; omit them", code="backbone.argument", fields=clash
        )
    weights = arguments.pop("weights", "imagenet")
    size = _FIXED_SIZES.get(name)
    try:
        with warnings.catch_warnings(), channels_last():
            warnings.filterwarnings("ignore", message=".*Weights for input shape.*")
            model = known[name](include_top=False, weights=weights, input_shape=(size, size, 3), **arguments)
    except (TypeError, ValueError, OSError) as error:
        raise BackboneError(f"{call}: {error}", code="backbone.argument", value=call) from error
    except Exception as error:  # keras raises a bare Exception when a download fails
        if "URL fetch failure" not in str(error):
            raise
        raise _missing_weights(call, str(error)) from error
    before = preprocessing(known[name], rescales=rescales(model))
    return Backbone(call, model, before, _natural_size(model), pretrained=weights is not None)


def _missing_weights(call: str, error: str) -> BackboneError:
    url = re.search(r"https?://\S+?(?=:? None|:? \d{3}|$)", error)
    file = url.group().rstrip(":").rsplit("/", 1)[-1] if url else "the weights' file"
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    return BackboneError(
        f"the ImageNet weights of {call} could not be downloaded ({error.splitlines()[0]}).\n"
        f"Keras looks for {file} in {folder}: put the file there, or set KERAS_HOME to a folder that has it in "
        "models/.\n"
        "Without a network connection, use backbone='glyphs' (included in recipes, for small drawings), a .keras file "
        f"of your own, or recipe='scratch' with backbone='{call.split('(')[0]}(weights=None)' to train from random "
        "weights.",
        code="backbone.weights",
        file=file,
        folder=folder,
    )


def _copy(model: keras.Model) -> keras.Model:
    """Return a copy made through a .keras file, to reject a model that could not be saved after the training."""
    if not getattr(model, "inputs", None):
        return model  # `_from_model` rejects this model
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.keras"
        try:
            model.save(path)
            return load_model(path)
        except Exception as error:  # a layer's get_config or from_config may raise any exception
            raise BackboneError(
                f"backbone {model.name} cannot be saved as .keras and loaded again safely: {error}",
                code="backbone.copy",
            ) from error


def _load(path: Path) -> keras.Model:
    if not path.is_file():
        raise BackboneError(f"backbone {path} does not exist; check the path", code="backbone.missing", path=path)
    try:
        return load_model(path)
    except (UnsafeFileError, OSError) as error:
        raise BackboneError(
            f"backbone {path} is not a .keras model that can be loaded safely: {error}", code="backbone.file", path=path
        ) from error


def _from_model(model: keras.Model, name: str) -> Backbone:
    _check_input(model, name)
    if first := channels_first_layer(model):
        raise BackboneError(
            f"the layer {first} of backbone {name} computes with channels first; expected channels last. Build the "
            'network after keras.config.set_image_data_format("channels_last")',
            code="backbone.channels_first",
            layer=first,
        )
    if run := network_of_run(model):
        model, before = run
    else:
        before = preprocessing_of(model)
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        model = without_head(model)
    shape = tuple(model.outputs[0].shape)
    if len(shape) not in (2, 4):
        raise BackboneError(
            f"backbone {name} returns {shape}; expected a feature map (batch, h, w, c) or (batch, c)",
            code="backbone.output",
            shape=shape,
        )
    _set_current_precision(model)
    return Backbone(name, model, before, _natural_size(model))


def _check_input(model: keras.Model, name: str) -> None:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise BackboneError(
            f"backbone {name} must be a built functional keras.Model with one input of images",
            code="backbone.not_functional",
        )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[-1] != 3:
        expected = "(batch, height, width, 3)"
    elif shape[1] != shape[2]:
        expected = "square images, or any size"
    else:
        return
    raise BackboneError(
        f"the input of backbone {name} is {shape}; expected {expected}", code="backbone.input", shape=shape
    )


def _set_current_precision(model: keras.Model) -> None:
    """Set the current dtype policy on all layers of `model`, unless the policies of its layers differ."""
    layers, usual = model._flatten_layers(include_self=False), ("float32", "mixed_float16", "mixed_bfloat16")
    rebuilt = keras.layers.InputLayer | keras.Model  # loading gives these layers the current policy
    layers = [layer for layer in layers if not isinstance(layer, rebuilt)]
    if len({layer.dtype_policy.name for layer in layers}) == 1 and layers[0].dtype_policy.name in usual:
        for layer in layers:
            layer.dtype_policy = keras.config.dtype_policy()


def _natural_size(model: keras.Model) -> int:
    usual = next((size for name, size in _NATURAL_SIZES.items() if plain(model.name).startswith(name)), 224)
    return model.inputs[0].shape[1] or usual
