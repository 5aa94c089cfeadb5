"""`.keras` files from anybody: the network is built from its description, and nothing else is done.

Keras's `safe_mode` refuses Python bytecode, but still instantiates whatever classes of Keras the description names,
calls them with whatever arguments it gives, and allocates what it declares. Here all of the description is looked at
first: only layers of numbers; only calls on symbolic tensors; and no more values than the file has weights.
"""

import io
import json
import math
import sys
import tempfile
from pathlib import Path

import h5py
import keras
from keras.src.backend.common import global_state
from keras.src.layers.preprocessing.index_lookup import IndexLookup
from keras.src.saving.serialization_lib import ObjectSharingScope

from recipes.core.archives import allowance, open_archive
from recipes.errors import UnsafeFileError
from recipes.networks.data_format import channels_last

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {_CONFIG, _WEIGHTS, "metadata.json"}
_DATA = {"__keras_tensor__", "__bytes__", "__slice__", "__ellipsis__", "__tensor__", "__numpy__"}
_NUMBERS = {"bool", "bfloat16", *(f"float{n}" for n in (16, 32, 64)),
            *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64))}  # fmt: skip
_KINDS = (
    keras.Operation, keras.Initializer, keras.Regularizer, keras.constraints.Constraint, keras.DTypePolicy,
    keras.dtype_policies.DTypePolicyMap, keras.Quantizer,
)  # fmt: skip
_REFUSED = (  # they run code, read files, or allocate at once
    IndexLookup, keras.utils.FeatureSpace,
    *(getattr(keras.layers, name) for name in ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer",
      "TextVectorization", "MelSpectrogram", "STFTSpectrogram") if hasattr(keras.layers, name)),
)  # fmt: skip
_WIDEST = 2**20  # channels of a Normalization, the only layer of images that allocates before its weights are known


def load_model(path) -> keras.Model:
    """The model in a `.keras` file, not compiled.

    Raises: UnsafeFileError for a file that is damaged, or asks for anything but layers of numbers and their weights;
        OSError when it cannot be read.
    """
    path = Path(path)
    with open_archive(path) as archive:
        names = set(archive.namelist())
        if names - _MEMBERS or not {_CONFIG, _WEIGHTS} <= names:
            raise UnsafeFileError(f"{path} holds {sorted(names)}; expected {sorted(_MEMBERS)} and nothing else")
        try:
            config, weights = json.loads(archive.read(_CONFIG), object_hook=_uncompiled), archive.read(_WEIGHTS)
            check_config(config)
            model = _build(config, stored_values(weights))
            if not isinstance(model, keras.Model):
                raise UnsafeFileError(f"it describes a {type(model).__name__}, no model")
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / _WEIGHTS).write_bytes(weights)
                model.load_weights(Path(folder) / _WEIGHTS)
        except UnsafeFileError as error:
            raise UnsafeFileError(f"{path} is refused: {error}") from error
        except Exception as error:  # whatever zipfile, JSON, HDF5 or a layer's from_config raises
            raise UnsafeFileError(f"{path} is damaged: {type(error).__name__}: {str(error)[:300]}") from error
    return model


def _uncompiled(part: dict) -> dict:
    """Nested models too: an optimizer and its state are of no use here."""
    part.pop("compile_config", None)
    return part


def check_config(config) -> None:
    """Whether a model's description names data only.

    Raises: UnsafeFileError naming the part that does not.
    """
    parts = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                _check_object(part)
            for node in part.get("inbound_nodes") or ():
                if '"__keras_tensor__"' not in json.dumps(node):
                    raise UnsafeFileError(f"{part.get('name')!r} is called on no tensor of the network")
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _check_object(part: dict) -> None:
    name, inner = part["class_name"], part.get("config")
    if name in ("__tensor__", "__numpy__") and not (isinstance(inner, dict) and inner.get("dtype") in _NUMBERS):
        raise UnsafeFileError(f"an array of {inner!r:.100}; expected numbers")
    if name in _DATA:
        return
    found = _named(part)
    if name == "function":
        if not callable(found):
            raise UnsafeFileError(f"the function {inner!r:.100} is no activation")
    elif not (isinstance(found, type) and issubclass(found, _KINDS)):
        raise UnsafeFileError(
            f"{part.get('module')}.{name} is no layer or other part of a network that is known here; if it is one of "
            "your own, import the module that registers it before loading"
        )
    elif issubclass(found, _REFUSED):
        raise UnsafeFileError(f"a {name} layer may run code, read files or fill the memory")
    elif issubclass(found, keras.layers.Normalization):
        _check_normalization(part)


def _named(part: dict):
    """The class or function that Keras will take for a part, found without importing anything."""
    name, module, inner = part["class_name"], part.get("module"), part.get("config")
    key = inner if name == "function" else part.get("registered_name", name)
    if not isinstance(key, str | None) or not isinstance(name, str):
        raise UnsafeFileError(f"an object without a module or a name: {part!r:.100}")
    registered = keras.saving.get_registered_object(key) if key else None
    if registered is not None:
        return registered  # its module may be null: Keras writes that for `__main__`, a notebook's
    if not isinstance(module, str):
        raise UnsafeFileError(f"an object without a module or a name: {part!r:.100}")
    if name == "function":
        known = module in ("builtins", "keras.activations") and inner not in ("get", "serialize", "deserialize")
        return vars(keras.activations).get(inner) if known else None
    return getattr(sys.modules.get(module), name, None) if module.split(".")[0] in ("keras", "keras_cv") else None


def _check_normalization(part: dict) -> None:
    shape, axes = (part.get("build_config") or {}).get("input_shape"), part["config"].get("axis")
    axes = axes if isinstance(axes, list) else [] if axes is None else [axes]
    if not shape or math.prod(shape[axis] or 1 for axis in axes) > _WIDEST:
        raise UnsafeFileError(f"a Normalization of {shape} along {axes}; expected at most {_WIDEST:,} channels")


def stored_values(weights: bytes) -> int:
    """How many numbers an HDF5 file holds; each counts once, however many links lead to it.

    Raises: UnsafeFileError for links and data outside the file, for anything but numbers, and for arrays that declare
        far more than is stored.
    """
    values, seen = {}, set()
    with h5py.File(io.BytesIO(weights), "r") as file:
        groups = [file]
        while groups:
            group = groups.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise UnsafeFileError(f"the weights hold a link to another place: {name}")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                if isinstance(item, h5py.Dataset):
                    _check_dataset(name, item)
                    values[address] = item.size
                elif isinstance(item, h5py.Group) and address not in seen:
                    seen.add(address)
                    groups.append(item)
    return sum(values.values())


def _check_dataset(name: str, item: h5py.Dataset) -> None:
    if item.external or item.is_virtual:
        raise UnsafeFileError(f"the weights {name} lie in another file")
    if item.dtype.kind not in "fiubV" or item.dtype.hasobject or item.dtype.itemsize > 8:
        raise UnsafeFileError(f"the weights {name} are {item.dtype}; expected numbers")
    if item.nbytes > allowance(item.id.get_storage_size()):
        raise UnsafeFileError(
            f"the weights {name} declare {item.nbytes:,} bytes of which {item.id.get_storage_size():,} are stored"
        )


def _build(config: dict, stored: int) -> keras.Model:
    """The model with its weights drawn at random; they are allocated once it is known that there are so many.

    In a StatelessScope variables have shapes and get their values at its end. There TensorFlow makes those of frozen
    layers such that no GradientTape watches them, for ever: so they count as trainable until they are made.
    """
    frozen = []
    with channels_last(), ObjectSharingScope(), keras.StatelessScope():
        try:
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            pending = global_state.get_global_attribute("uninitialized_variables") or []
            declared = sum(math.prod(variable.shape) for variable in pending)
            if declared > stored + 16 * len(pending):  # the states of random generators are not stored
                raise UnsafeFileError(f"it declares {declared:,} weights, and holds {stored:,}")
            layers = model._flatten_layers() if isinstance(model, keras.layers.Layer) else ()
            frozen += [v for layer in layers for v in layer._trainable_variables if not v.trainable]
            for variable in frozen:
                variable.trainable = True
        except BaseException:
            global_state.set_global_attribute("uninitialized_variables", [])
            raise
    for variable in frozen:
        variable.trainable = False
    return model
