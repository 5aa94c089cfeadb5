"""`.keras` files and run folders from anybody: nothing is executed, followed elsewhere, or allocated on trust."""

import io
import json
import os
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
from assertions import rejects

import layers
from layers.frozen_statistics import is_frozen
from recipes import BackboneError, OutputError, UnsafeFileError
from recipes.core.archives import load_arrays
from recipes.networks.backbones import resolve
from recipes.networks.keras_file import load_model
from recipes.runs.folder import load

TENSOR = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "dtype": "float32",
                                                      "keras_history": ["in", 0, 0]}}  # fmt: skip


def part(module, class_name, config=None, **more) -> dict:
    return {"module": module, "class_name": class_name, "config": config or {}, "registered_name": None, **more}


def call(*args, **kwargs) -> list:
    return [{"args": list(args), "kwargs": kwargs}]


def network(*layers: dict, last: str = "odd") -> dict:
    """The description of a functional model: an input of 4 numbers, then `layers`."""
    first = part("keras.layers", "InputLayer", {"batch_shape": [None, 4], "dtype": "float32", "name": "in"}, name="in",
                 inbound_nodes=[])  # fmt: skip
    config = {"name": "m", "trainable": True, "layers": [first, *layers], "input_layers": [["in", 0, 0]],
              "output_layers": [[last, 0, 0]]}  # fmt: skip
    return part("keras.src.models.functional", "Functional", config) | {"registered_name": "Functional"}


def layer(class_name: str, config: dict | None = None, module="keras.layers", nodes=None, **more) -> dict:
    nodes = call(TENSOR) if nodes is None else nodes
    return part(module, class_name, {"name": "odd", **(config or {})}, name="odd", inbound_nodes=nodes, **more)


def weights(fill=None) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        if fill:
            fill(file)
    return content.getvalue()


def archive(path, config, h5: bytes | None = None, extra: dict | None = None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", config if isinstance(config, str | bytes) else json.dumps(config))
        file.writestr("model.weights.h5", weights() if h5 is None else h5)
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return path


def error(code: str, cause: type = UnsafeFileError, **facts) -> tuple[type, dict]:
    """The cause and the attributes of an UnsafeFileError."""
    return cause, {"code": f"unsafe_file.{code}", **facts}


def load_rejected(path, expected: tuple[type, dict]) -> None:
    cause, attributes = expected
    with rejects(UnsafeFileError, **attributes) as caught:
        load_model(path)
    assert isinstance(caught.value.__cause__, cause)


DENSE = layer("Dense", {"units": 2})
FUNCTION = {"module": "keras.models", "class_name": "function", "config": "load_model", "registered_name": "function"}
BYTECODE = {"class_name": "__lambda__", "config": {"value": "4wAAAA", "defaults": None, "closure": None}}
CONFIGS = {
    "Lambda with bytecode": (network(layer("Lambda", {"function": BYTECODE})), error("layer", name="Lambda")),
    "Lambda of a function of Keras": (network(layer("Lambda", {"function": FUNCTION})), error("layer", name="Lambda")),
    "bytecode elsewhere": (network(layer("Dense", {"units": 2, "activation": BYTECODE})), error("anonymous")),
    "class of another module": (network(layer("Popen", {"args": "true"}, module="subprocess")),
        error("class", name="Popen")),
    "function of another module": (
        network(layer("Activation", {"activation": part("os", "function") | {"config": "system"}})),
        error("function", name="system")),
    "get_file": (
        network(layer("Activation", {"activation": part("keras.utils", "function") | {"config": "get_file"}})),
        error("function", name="get_file")),
    "enable_unsafe_deserialization": (
        network(layer("Activation", {"activation": part("keras.config", "function")
                                     | {"config": "enable_unsafe_deserialization"}})), error("function")),
    "activations.deserialize": (
        network(layer("Activation", {"activation": part("builtins", "function") | {"config": "deserialize"}})),
        error("function")),
    "function as a layer": (network(layer("clear_session", module="keras.utils")), error("class")),
    "module that is not imported": (network(layer("Thing", module="keras.src.absent")), error("class")),
    "package beside Keras": (network(layer("Task", module="keras_hub.models")), error("class")),
    "class of Keras that is no layer": (network(layer("CustomObjectScope", module="keras.saving")), error("class")),
    "TFSMLayer": (network(layer("TFSMLayer", {"filepath": "/tmp/x"})), error("layer", name="TFSMLayer")),
    "TorchModuleWrapper": (network(layer("TorchModuleWrapper", {"module": "x"})),
        error("layer", name="TorchModuleWrapper")),
    "StringLookup reads a file": (network(layer("StringLookup", {"vocabulary": "/etc/passwd"})),
        error("layer", name="StringLookup")),
    "the class that StringLookup is made from": (
        network(layer("IndexLookup", module="keras.src.layers.preprocessing.index_lookup")),
        error("layer", name="IndexLookup")),
    "TextVectorization": (network(layer("TextVectorization", {"vocabulary": "/etc/passwd"})),
        error("layer", name="TextVectorization")),
    "layer inside a wrapper": (
        network(layer("TimeDistributed", {"layer": layer("Lambda", {"function": BYTECODE})})),
        error("layer", name="Lambda")),
    "call on constants": (network(layer("UpSampling1D", {"size": 10**9}, nodes=call([[1.0]]))), error("call")),
    "array of text": (
        network(layer("Dense", {"units": part("builtins", "__numpy__", {"value": ["x"], "dtype": "S4000000000"})})),
        error("array")),
    "registered name of another": (network(layer("Dense", registered_name={"a": 1})), error("anonymous")),
    "no module": (network({"class_name": "Dense", "config": {"units": 2}, "name": "odd"}), error("anonymous")),
    "list for a class name": (network(layer(["Dense"])), error("damaged", TypeError)),
    "unbounded Dense": (
        network(layer("Dense", {"units": 10**11}, build_config={"input_shape": [None, 4]})),
        error("size", declared=500_000_000_000, stored=0)),
    "unbounded Embedding": (
        network(layer("Embedding", {"input_dim": 10**10, "output_dim": 64})), error("size", declared=640_000_000_000)),
    "unbounded Normalization": (
        network(layer("Normalization", {"axis": -1}, build_config={"input_shape": [None, 10**10]})),
        error("normalization")),
    "Normalization without a shape": (network(layer("Normalization", {"axis": -1})), error("normalization")),
    "compiled with another module": (
        {**network(DENSE), "config": {**network(DENSE)["config"], "x": part("os", "system")}},
        error("class", name="system")),
    "more weights than stored": (network(layer("Dense", {"units": 2000})), error("size", declared=10_000, stored=0)),
    "no model": (layer("Dense", {"units": 2}), error("not_a_model")),
    "deeply nested": ('{"class_name":' + "[" * 100_000 + "]" * 100_000 + "}", error("damaged", RecursionError)),
    "no JSON": ("{", error("damaged", json.JSONDecodeError)),
    "a number": ("3", error("not_a_model")),
    "bytes": (b"\xff\xfe\x00", error("damaged", ValueError)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_description_that_is_rejected(tmp_path, name):
    config, expected = CONFIGS[name]
    load_rejected(archive(tmp_path / "odd.keras", config), expected)


def test_nothing_is_left_behind_by_a_rejected_model(tmp_path):
    """The variables that were declared must not be allocated by whatever Keras does next."""
    load_rejected(archive(tmp_path / "odd.keras", CONFIGS["unbounded Dense"][0]), error("size"))
    with keras.StatelessScope():
        pass
    assert keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])(np.ones((1, 3))).shape == (1, 2)


def linked(file):
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft(file):
    file["layers"] = h5py.SoftLink("/elsewhere")


def outside(file):
    file.create_dataset("layers", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
    file.create_virtual_dataset("layers", layout)


def shape_bomb(file):
    file.create_dataset("layers", (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


def text(file):
    file["layers"] = np.array([b"x"], object).astype(h5py.string_dtype())


def many_links(file):
    file["layers/a"] = np.zeros(1000, "f4")
    for i in range(100):
        file[f"layers/b{i}"] = file["layers/a"]


def cycle(file):
    file.create_group("layers")["again"] = file["/"]


WEIGHTS = {
    "external link": (linked, error("link")),
    "soft link": (soft, error("link")),
    "external data": (outside, error("external")),
    "virtual data": (virtual, error("external")),
    "shape bomb": (shape_bomb, error("size", declared=4 * 10**12, stored=0)),
    "text": (text, error("array")),
    "one array linked many times": (many_links, error("size", declared=10_000, stored=1_000)),
    "cycle of groups": (cycle, error("size", declared=10_000, stored=0)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_rejected(tmp_path, name):
    fill, expected = WEIGHTS[name]
    config = network(layer("Dense", {"units": 2000}))
    load_rejected(archive(tmp_path / "odd.keras", config, weights(fill)), expected)


ARCHIVES = {
    "no archive": (lambda path: path.write_bytes(b"not a zip"), "archive.damaged"),
    "empty": (lambda path: path.write_bytes(b""), "archive.damaged"),
    "no weights": (lambda path: zipfile.ZipFile(path, "w").writestr("config.json", "{}"), "unsafe_file.members"),
    "another member": (lambda path: archive(path, network(DENSE), extra={"evil.py": "x"}), "unsafe_file.members"),
    "HDF5 that is none": (lambda path: archive(path, network(DENSE), b"\x89HDF nonsense"), "unsafe_file.damaged"),
}
UNSAFE_ARCHIVES = {  # what is wrong with the archive, whatever is in its members
    "assets": (lambda path: archive(path, network(DENSE), extra={"assets/x.txt": "x"}), "members in folders"),
    "path out of it": (lambda path: archive(path, network(DENSE), extra={"../evil.txt": "x"}), "members in folders"),
    "absolute path": (lambda path: archive(path, network(DENSE), extra={"/tmp/evil": "x"}), "members in folders"),
    "decompression bomb": (lambda path: archive(path, b" " * 10**8, compression=zipfile.ZIP_DEFLATED), "unpacks from"),
    "two members of one name": (
        lambda path: archive(path, network(DENSE), extra={"config.json": "{}"}), "members of the same name"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_rejected(tmp_path, name):
    path = tmp_path / "odd.keras"
    write, code = ARCHIVES[name]
    write(path)
    with rejects(UnsafeFileError, code, path=path):
        load_model(path)
    with rejects(BackboneError, "backbone.file", path=path):
        resolve(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", UNSAFE_ARCHIVES)
def test_unsafe_archives_are_rejected(tmp_path, name):
    path = tmp_path / "odd.keras"
    write, reason = UNSAFE_ARCHIVES[name]
    write(path)
    with rejects(UnsafeFileError, "archive.unsafe", path=path) as caught:
        load_model(path)
    assert reason in caught.value.reason
    with rejects(BackboneError, "backbone.file", path=path):
        resolve(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def header_of(shape: str, dtype: str = "<f4", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body


ARRAYS = {
    "pickled objects": (
        header_of("(1,)", "|O", pickle.dumps(Evil())), "archive.unsafe", dict(declared="object", shape=(1,))),
    "shape bomb": (
        header_of("(1000000000000,)"), "archive.unsafe", dict(declared="float32", shape=(10**12,), member="a.npy")),
    "negative shape": (header_of("(-1,)", body=b"1234"), "archive.unsafe", dict(declared="float32", shape=(-1,))),
    "code for a header": (header_of("__import__('os').mkdir('executed')"), "archive.damaged", {}),
    "no array": (b"hello", "archive.damaged", {}),
    "cut off": (header_of("(4,)", body=b"1234"), "archive.unsafe", dict(declared="float32", shape=(4,))),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_rejected(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, code, attributes = ARRAYS[name]
    with zipfile.ZipFile("odd.npz", "w") as file:
        file.writestr("a.npy", content)
    with rejects(UnsafeFileError, code, path=tmp_path / "odd.npz", **attributes):
        load_arrays(tmp_path / "odd.npz")
    assert not (tmp_path / "executed").exists()


RUNS = {
    "no JSON": (lambda run: (run / "result.json").write_text("{"), "output.unreadable"),
    "a list": (lambda run: (run / "result.json").write_text("[]"), "output.no_description"),
    "deep": (lambda run: (run / "result.json").write_text("[" * 100_000), "output.unreadable"),
    "link out of the folder": (lambda run: (run / "result.json").symlink_to("/etc/hostname"), "output.link"),
    "nothing in it": (lambda run: (run / "result.json").write_text('{"command": {}}'), "output.damaged"),
    "not UTF-8": (lambda run: (run / "result.json").write_bytes(b"\xff\xfe"), "output.unreadable"),
    "a folder": (lambda run: (run / "result.json").mkdir(), "output.no_run"),
}
DAMAGED_RUNS = {  # the files beside a sound result.json, and the code of the error that names what is wrong
    "bad model": (
        lambda run: archive(run / "model.keras", CONFIGS["Lambda with bytecode"][0]), "unsafe_file.layer"),
    "model elsewhere": (lambda run: (run / "model.keras").symlink_to("/etc/hostname"), "output.link"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_are_rejected(tmp_path, name):
    write, code = RUNS[name]
    write(tmp_path)
    whole_run = code in ("output.damaged", "output.no_run")
    with rejects(OutputError, code, path=tmp_path if whole_run else tmp_path / "result.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", DAMAGED_RUNS)
def test_runs_with_an_unsafe_model_are_rejected(tmp_path, name):
    write, cause = DAMAGED_RUNS[name]
    (tmp_path / "result.json").write_text('{"command": {}, "probe": null}')
    write(tmp_path)
    with rejects(OutputError, "output.damaged", path=tmp_path) as caught:
        load(tmp_path)
    assert (caught.value.__cause__.code, caught.value.__cause__.path) == (cause, tmp_path / "model.keras")


def test_sound_models_load_with_the_same_weights(tmp_path):
    """Dropout, batch normalisation, an operation, a nested and compiled model, a shared layer."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    inner.compile("adam", "mse", metrics=["mae"])
    images, shared = keras.Input((8, 8, 3)), keras.layers.Dense(3, activation="gelu", dtype="float32")
    x = keras.ops.mean(inner(keras.layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6])(images)), (1, 2))
    x = keras.layers.Dropout(0.2, seed=1)(shared(keras.layers.Dense(3)(shared(keras.layers.Dense(3)(x)))))
    model = keras.Model(images, keras.layers.Softmax()(x))
    model.save(tmp_path / "sound.keras")
    again, pixels = load_model(tmp_path / "sound.keras"), np.random.default_rng(0).uniform(0, 9, (2, 8, 8, 3))
    np.testing.assert_array_equal(again(pixels), model(pixels))
    assert all(map(np.array_equal, again.get_weights(), model.get_weights()))


def test_a_layer_of_a_notebook_is_allowed_once_it_is_registered(tmp_path):
    """Keras writes no module for `__main__`; the registered name is what counts."""

    class Doubled(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    Doubled.__module__ = "__main__"
    model = keras.Sequential([keras.Input((4,)), Doubled(name="odd")])
    model.save(tmp_path / "notebook.keras")
    load_rejected(tmp_path / "notebook.keras", error("anonymous"))
    keras.saving.register_keras_serializable(package="notebook")(Doubled)
    model.save(tmp_path / "notebook.keras")
    with zipfile.ZipFile(tmp_path / "notebook.keras") as file:
        assert '"module": null' in file.read("config.json").decode()
    found = load_model(tmp_path / "notebook.keras")
    np.testing.assert_array_equal(found(np.ones((1, 4))), np.full((1, 4), 2.0))


def test_frozen_layers_can_be_trained_after_loading(tmp_path):
    """In the scope where they are built, TensorFlow would make their variables such that no tape watches them."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, trainable=False), keras.layers.Dense(2)])
    model.save(tmp_path / "frozen.keras")
    found = load_model(tmp_path / "frozen.keras")
    assert [variable.trainable for variable in found.layers[0].weights] == [False, False]
    found.layers[0].trainable = True
    before = np.array(keras.ops.convert_to_numpy(found.layers[0].kernel))  # a copy: TensorFlow's shares memory
    found.compile("sgd", "mse")
    found.train_on_batch(np.ones((5, 4)), np.ones((5, 2)))
    assert np.abs(keras.ops.convert_to_numpy(found.layers[0].kernel) - before).max() > 0


def test_frozen_batch_statistics_are_loaded_and_only_those(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="norm")])
    layers.freeze_batch_statistics(model)
    model.save(tmp_path / "frozen.keras")
    norm = load_model(tmp_path / "frozen.keras").get_layer("norm")
    norm(np.full((5, 4), 7.0), training=True)
    assert is_frozen(norm) and not np.any(norm.moving_mean)
    for name, expected in (("Lambda", error("layer", name="Lambda")), ("Dense", error("damaged", Exception))):
        odd = layer("FrozenBatchNormalization", {"unfrozen": part("keras.layers", name)}, module="layers")
        config = network(odd | {"registered_name": "layers>FrozenBatchNormalization"})
        load_rejected(archive(tmp_path / "odd.keras", config), expected)
