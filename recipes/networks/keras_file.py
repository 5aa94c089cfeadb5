"""Load `.keras` files from untrusted sources without running code that a file contains.

Keras's `safe_mode` rejects Python bytecode. It still instantiates every Keras class that the description names, with
any arguments, and allocates as much memory as the description declares. This module checks the whole description first:
it only allows layers of numbers, calls on symbolic tensors, and as many values as the file has weights.
"""

import io
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import keras
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue] - compiled, without a stub
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
_REJECTED = (  # layers that run code, read files, or allocate memory immediately
    IndexLookup, keras.utils.FeatureSpace,
    *(getattr(keras.layers, name) for name in ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer",
      "TextVectorization", "MelSpectrogram", "STFTSpectrogram") if hasattr(keras.layers, name)),
)  # fmt: skip
# largest number of channels of a Normalization, the only image layer that allocates before its weights are known
_WIDEST = 2**20


def load_model(path: str | Path) -> keras.Model:
    """Return the model in a `.keras` file, not compiled.

    Raises:
        UnsafeFileError: If the file is damaged, or contains anything except layers of numbers and their weights.
        OSError: The file cannot be read.
    """
    path = Path(path)
    with open_archive(path) as archive:
        names = set(archive.namelist())
        if names - _MEMBERS or not {_CONFIG, _WEIGHTS} <= names:
            raise UnsafeFileError(
                f"{path} holds {sorted(names)}; expected only {sorted(_MEMBERS)}",
                code="unsafe_file.members", path=path, members=tuple(sorted(names)),
            )  # fmt: skip
        try:
            config, weights = json.loads(archive.read(_CONFIG), object_hook=_uncompiled), archive.read(_WEIGHTS)
            check_config(config)
            model = _build(config, stored_values(weights))
            if not isinstance(model, keras.Model):
                raise UnsafeFileError(
                    f"the file describes a {type(model).__name__}; expected a model", code="unsafe_file.not_a_model"
                )
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / _WEIGHTS).write_bytes(weights)
                model.load_weights(Path(folder) / _WEIGHTS)
        except UnsafeFileError as error:
            facts: dict[str, Any] = {**vars(error), "path": path}
            raise UnsafeFileError(f"{path} is rejected: {error}", **facts) from error
        except Exception as error:  # zipfile, JSON, HDF5 and a layer's from_config raise many types
            raise UnsafeFileError(
                f"{path} is damaged: {type(error).__name__}: {str(error)[:300]}", code="unsafe_file.damaged", path=path
            ) from error
    return model


def _uncompiled(part: dict) -> dict:
    """Remove the optimizer and its state from the description of a model or a nested model."""
    part.pop("compile_config", None)
    return part


def check_config(config: object) -> None:
    """Check that the description of a model only contains data.

    Raises:
        UnsafeFileError: If a part of the description may run code, read files or allocate too much memory.
    """
    parts = [config]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if "class_name" in part:
                _check_object(part)
            for node in part.get("inbound_nodes") or ():
                if '"__keras_tensor__"' not in json.dumps(node):
                    raise UnsafeFileError(
                        f"{part.get('name')!r} is called without a tensor of the network; expected only calls on "
                        "tensors",
                        code="unsafe_file.call",
                    )
            parts += part.values()
        elif isinstance(part, list):
            parts += part


def _check_object(part: dict) -> None:
    name, inner = part["class_name"], part.get("config")
    if name in ("__tensor__", "__numpy__") and not (isinstance(inner, dict) and inner.get("dtype") in _NUMBERS):
        raise UnsafeFileError(f"an array is {inner!r:.100}; expected numbers", code="unsafe_file.array")
    if name in _DATA:
        return
    found = _named(part)
    if name == "function":
        if not callable(found):
            raise UnsafeFileError(
                f"the function {inner!r:.100} is not an activation; expected an activation of Keras",
                code="unsafe_file.function",
                name=inner,
            )
    elif not (isinstance(found, type) and issubclass(found, _KINDS)):
        raise UnsafeFileError(
            f"{part.get('module')}.{name} is not a known part of a network; if it is your own layer, import the "
            "module that registers it before loading",
            code="unsafe_file.class",
            name=name,
        )
    elif issubclass(found, _REJECTED):
        raise UnsafeFileError(
            f"a {name} layer may run code, read files or exhaust the memory", code="unsafe_file.layer", name=name
        )
    elif issubclass(found, keras.layers.Normalization):
        _check_normalization(part)


def _named(part: dict) -> Any:
    """Return the class or function that Keras uses for a part, without importing any module; None if unknown."""
    name, module, inner = part["class_name"], part.get("module"), part.get("config")
    key = inner if name == "function" else part.get("registered_name", name)
    anonymous = UnsafeFileError(f"an object has no module or no name: {part!r:.100}", code="unsafe_file.anonymous")
    if not isinstance(key, str | None) or not isinstance(name, str):
        raise anonymous
    registered = keras.saving.get_registered_object(key) if key else None
    if registered is not None:
        return registered  # the module is null for classes of `__main__`, as in a notebook
    if not isinstance(module, str):
        raise anonymous
    if name == "function":
        known = module in ("builtins", "keras.activations") and key not in ("get", "serialize", "deserialize")
        return vars(keras.activations).get(key) if known and key is not None else None
    return getattr(sys.modules.get(module), name, None) if module.split(".")[0] in ("keras", "keras_cv") else None


def _check_normalization(part: dict) -> None:
    shape, axes = (part.get("build_config") or {}).get("input_shape"), part["config"].get("axis")
    axes = axes if isinstance(axes, list) else [] if axes is None else [axes]
    if not shape or math.prod(shape[axis] or 1 for axis in axes) > _WIDEST:
        raise UnsafeFileError(
            f"a Normalization layer has the shape {shape} along {axes}; expected at most {_WIDEST:,} channels",
            code="unsafe_file.normalization",
        )


def stored_values(weights: bytes) -> int:
    """Return the number of values in an HDF5 file; arrays with several links count once.

    Raises:
        UnsafeFileError: If the file refers to other files, holds anything except numbers, or declares far larger arrays
            than it stores.
    """
    values, seen = {}, set()
    with h5py.File(io.BytesIO(weights), "r") as file:
        groups: list[h5py.Group] = [file]
        while groups:
            group = groups.pop()
            for name in map(str, group):
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise UnsafeFileError(
                        f"the weights contain a link to another file or place: {name}", code="unsafe_file.link"
                    )
                item = group[name]
                address = h5o.get_info(item.id).addr
                if isinstance(item, h5py.Dataset):
                    _check_dataset(name, item)
                    values[address] = item.size
                elif isinstance(item, h5py.Group) and address not in seen:
                    seen.add(address)
                    groups.append(item)
    return sum(values.values())


def _check_dataset(name: str, item: h5py.Dataset) -> None:
    if item.external or item.is_virtual:
        raise UnsafeFileError(f"the weights {name} are stored in another file", code="unsafe_file.external")
    if item.dtype.kind not in "fiubV" or item.dtype.hasobject or item.dtype.itemsize > 8:
        raise UnsafeFileError(f"the weights {name} are {item.dtype}; expected numbers", code="unsafe_file.array")
    if item.nbytes > allowance(item.id.get_storage_size()):
        raise UnsafeFileError(
            f"the weights {name} declare {item.nbytes:,} bytes, but only {item.id.get_storage_size():,} are stored",
            code="unsafe_file.size",
            declared=item.nbytes,
            stored=item.id.get_storage_size(),
        )


def _build(config: dict, stored: int) -> keras.Model:
    """Build the model with random weights after checking the number of weights.

    In a StatelessScope, variables only have shapes; their values are allocated when it ends. A GradientTape of
    TensorFlow never watches a variable that was frozen when it was created. Therefore all layers are trainable until
    their variables exist.
    """
    frozen = []
    with channels_last(), ObjectSharingScope(), keras.StatelessScope():
        try:
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            pending = global_state.get_global_attribute("uninitialized_variables") or []
            declared = sum(math.prod(variable.shape) for variable in pending)
            if declared > stored + 16 * len(pending):  # the file does not store the states of random generators
                raise UnsafeFileError(
                    f"the file declares {declared:,} weights, but holds {stored:,}",
                    code="unsafe_file.size",
                    declared=declared,
                    stored=stored,
                )
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
