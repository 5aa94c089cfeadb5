"""Pretrained networks: found by name, with their preprocessing inside, and their stages read off the graph."""

import ast
import math
import os
import re
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from recipes.core.devices import accelerator
from recipes.errors import BackboneError, UnsafeFileError
from recipes.networks.data_format import channels_first_layer, channels_last
from recipes.networks.heads import network_of_run, without_head
from recipes.networks.keras_file import load_model
from recipes.networks.preprocessing import constructors, plain, preprocessing, preprocessing_of, rescales


@dataclass(frozen=True, eq=False)
class Backbone:
    """A headless network and the layers that turn 0..255 RGB into what it expects.

    name:          how the user asked for it.
    network:       (batch, height, width, 3) of preprocessed pixels → feature map or vector.
    preprocessing: layers from 0..255 RGB to the network's input; empty where the network does it by itself.
    size:          the natural image size in pixels, used where the recipe names none.
    pretrained:    False where the weights are random (weights=None).
    """

    name: str
    network: keras.Model
    preprocessing: tuple[keras.layers.Layer, ...]
    size: int
    pretrained: bool = True

    def with_network(self, network: keras.Model) -> "Backbone":
        return replace(self, network=network)

    def __call__(self, images, network: keras.Model | None = None):
        """The outputs of `network` (this one's, or a model made of its layers) for 0..255 RGB."""
        for layer in self.preprocessing:
            images = layer(images)
        return (network or self.network)(images)

    def activations(self, size: int) -> int:
        """Bytes of the outputs of all layers for one image, in float32."""
        network = self.network
        tensors = [tensor for node in _nodes(network) for tensor in node.output_tensors]
        shapes = keras.Model(network.inputs, tensors).compute_output_shape((1, size, size, 3))
        return 4 * sum(math.prod(shape) for shape in shapes)

    @property
    def fixed_size(self) -> int | None:
        """The only image size that the network takes, None where it takes any."""
        return self.network.inputs[0].shape[1]


def default_name() -> str:
    """EfficientNetV2B0 where there is a GPU (or TPU), otherwise MobileNetV3Small."""
    return "EfficientNetV2B0" if accelerator() else "MobileNetV3Small"


def resolve(backbone) -> Backbone:
    """The backbone that the user means.

    backbone: "auto", a keras.applications constructor call such as "MobileNetV2(alpha=0.35)" (parsed, never
    evaluated), "glyphs", the path of a .keras file, a keras.Model (keras-cv backbones included), or a run: a Result,
    its folder, or its model.keras. A keras.Model whose name is that of a keras.applications network gets that network's
    preprocessing unless it rescales by itself; any other model must take 0..255 RGB. A classification head at its end
    is cut off. Of a run its network is taken, with its preprocessing.

    Raises: BackboneError for an unknown name, weights that cannot be had, a model that takes no images, and one whose
        preprocessing or whose features cannot be found.
    """
    if isinstance(backbone, keras.Model):
        return _from_model(_copy(backbone), backbone.name)
    if isinstance(getattr(backbone, "model", None), keras.Model):  # a Result
        return _from_model(_copy(backbone.model), f"finetuned {backbone.backbone.removeprefix('finetuned ')}")
    if not isinstance(backbone, str | os.PathLike):
        raise BackboneError(
            f"backbone is a {type(backbone).__name__}; expected a name, a .keras file, a run or a keras.Model"
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
        raise BackboneError(f"backbone {name!r} does not exist; expected a run's folder or a .keras file")
    return from_applications(name)


def _model_of_run(folder: Path) -> Path:
    if (folder / "result.json").is_file() and (folder / "model.keras").is_file():
        return folder / "model.keras"
    raise BackboneError(
        f"backbone {str(folder)!r} is a folder, but not that of a finished run; give a run's folder or a .keras file, "
        "such as backbone.keras of `pretrain`"
    )


def parse_call(call: str) -> tuple[str, dict]:
    """("MobileNetV2", {"alpha": 0.35}) from "MobileNetV2(alpha=0.35)"; arguments are keyword literals."""
    wrong = BackboneError(
        f"backbone {call!r} is no constructor call such as 'MobileNetV2(alpha=0.35)', no .keras file and not 'glyphs'"
    )
    try:
        tree = ast.parse(call, mode="eval").body
    except SyntaxError as error:
        raise wrong from error
    if isinstance(tree, ast.Name):
        return tree.id, {}
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)) or tree.args:
        raise wrong
    try:
        return tree.func.id, {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords}
    except (ValueError, TypeError) as error:
        raise wrong from error


_SET_HERE = {"include_top", "input_shape", "input_tensor", "pooling", "classes", "include_preprocessing"}


def from_applications(call: str) -> Backbone:
    """A keras.applications network with ImageNet weights, or those that the call's own `weights=` names."""
    name, arguments = parse_call(call)
    known = constructors()
    if name not in known:
        close = [other for other in known if other.lower()[:5] == name.lower()[:5]]
        raise BackboneError(f"keras.applications has no {name!r}; it has {close or sorted(known)}")
    clash = sorted(
        {"include_top", "input_shape", "input_tensor", "pooling", "classes", "include_preprocessing"} & set(arguments)
    )
    if clash:
        raise BackboneError(f"{call}: {clash} are set by the recipe; leave them out")
    weights = arguments.pop("weights", "imagenet")
    try:
        with warnings.catch_warnings(), channels_last():
            warnings.filterwarnings("ignore", message=".*Weights for input shape.*")
            # NASNet's cells fit only the size they are built at.
            size = {"NASNetMobile": 224, "NASNetLarge": 331}.get(name)
            model = known[name](include_top=False, weights=weights, input_shape=(size, size, 3), **arguments)
    except (TypeError, ValueError, OSError) as error:
        raise BackboneError(f"{call}: {error}") from error
    except Exception as error:  # keras raises a bare Exception when a download fails
        if "URL fetch failure" not in str(error):
            raise
        raise BackboneError(_missing_weights(call, str(error))) from error
    before = preprocessing(known[name], rescales=rescales(model))
    return Backbone(call, model, before, _natural_size(model), pretrained=weights is not None)


def _missing_weights(call: str, error: str) -> str:
    url = re.search(r"https?://\S+?(?=:? None|:? \d{3}|$)", error)
    file = url.group().rstrip(":").rsplit("/", 1)[-1] if url else "the weights' file"
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    return (
        f"the ImageNet weights of {call} could not be downloaded ({error.splitlines()[0]}).\n"
        f"Keras looks for {file} in {folder}: put it there, or set KERAS_HOME to a folder that has it in models/.\n"
        "Without a network: backbone='glyphs' (ships with recipes, for small drawings), a .keras file of your own, "
        "or recipe='scratch' with backbone='" + call.split("(")[0] + "(weights=None)' to train from nothing."
    )


def _copy(model: keras.Model) -> keras.Model:
    """An independent copy through a .keras file: the caller's model is left as it is, and what could not be saved after
    the training is refused before it."""
    if not getattr(model, "inputs", None):
        return model  # which is refused by name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.keras"
        try:
            model.save(path)
            return load_model(path)
        except Exception as error:  # whatever a layer's get_config or from_config raises
            raise BackboneError(
                f"backbone {model.name} cannot be saved as .keras and loaded again safely: {error}"
            ) from error


def _load(path: Path) -> keras.Model:
    if not path.is_file():
        raise BackboneError(f"backbone {path} does not exist")
    try:
        return load_model(path)
    except (UnsafeFileError, OSError) as error:
        raise BackboneError(f"backbone {path} is no .keras model that can be loaded safely: {error}") from error


def _from_model(model: keras.Model, name: str) -> Backbone:
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise BackboneError(f"backbone {name} must be a built functional keras.Model with one input of images")
    shape = model.inputs[0].shape
    if len(shape) != 4 or shape[-1] != 3:
        raise BackboneError(f"backbone {name} takes {tuple(shape)}; expected (batch, height, width, 3)")
    if shape[1] != shape[2]:
        raise BackboneError(f"backbone {name} takes {tuple(shape)}; expected square images, or any size")
    if name_of_first := channels_first_layer(model):
        raise BackboneError(
            f"the layer {name_of_first} of backbone {name} computes channels first; expected channels last. Build the "
            'network after keras.config.set_image_data_format("channels_last")'
        )
    if run := network_of_run(model):
        model, before = run
    else:
        before = preprocessing_of(model)
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        model = without_head(model)
    if len(model.outputs[0].shape) not in (2, 4):
        given = tuple(model.outputs[0].shape)
        raise BackboneError(f"backbone {name} returns {given}; expected a feature map (batch, h, w, c) or (batch, c)")
    _in_the_chosen_precision(model)
    return Backbone(name, model, before, _natural_size(model))


def _in_the_chosen_precision(model: keras.Model) -> None:
    """As a network of keras.applications is made in it: a model has that of the machine where it was made. One whose
    layers differ was made so on purpose, and stays."""
    layers, usual = model._flatten_layers(include_self=False), ("float32", "mixed_float16", "mixed_bfloat16")
    made_anew = keras.layers.InputLayer | keras.Model  # with the policy of now, when they are loaded
    layers = [layer for layer in layers if not isinstance(layer, made_anew)]
    if len({layer.dtype_policy.name for layer in layers}) == 1 and layers[0].dtype_policy.name in usual:
        for layer in layers:
            layer.dtype_policy = keras.config.dtype_policy()


def _natural_size(model: keras.Model) -> int:
    sizes = {"inceptionv3": 299, "inceptionresnetv2": 299, "xception": 299, "nasnetlarge": 331}
    usual = next((size for name, size in sizes.items() if plain(model.name).startswith(name)), 224)
    return model.inputs[0].shape[1] or usual


_PADDING = keras.layers.ZeroPadding2D  # belongs to the convolution after it, which is the next stage's


def stages(model: keras.Model, size: int) -> list[keras.KerasTensor]:
    """The last tensor at each stride (2^k) that every path from input to output crosses, shallow to deep.

    Found by sweeping the graph in topological order: when the only tensor still to be consumed is the one that was just
    produced, every path goes through it.
    """
    produced, consumers = [], {}
    for node in _nodes(model):
        for tensor in node.input_tensors:
            consumers[id(tensor)] = consumers.get(id(tensor), 0) + 1
        produced += [(node, tensor) for tensor in node.output_tensors]
    open_tensors, found = set(), {}
    for node, tensor in produced:
        for used in node.input_tensors:
            consumers[id(used)] -= 1
            if consumers[id(used)] == 0:
                open_tensors.discard(id(used))
        open_tensors.add(id(tensor))
        if open_tensors == {id(tensor)} and len(tensor.shape) == 4 and not isinstance(node.operation, _PADDING):
            found[id(tensor)] = tensor
    crossed = list(found.values())
    shapes = keras.Model(model.inputs, crossed).compute_output_shape((1, size, size, 3))
    last = {round(math.log2(size / shape[1])): tensor for tensor, shape in zip(crossed, shapes, strict=True)}
    return [tensor for stride, tensor in sorted(last.items()) if stride >= 1]


def _nodes(model: keras.Model) -> list:
    """The model's operation nodes, inputs before outputs."""
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
