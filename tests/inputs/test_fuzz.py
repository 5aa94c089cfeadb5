"""Random changes to sound files: whatever comes, the answer is data or one of this project's errors.

Hypothesis with fixed seeds: a few seconds of it always, a minute behind the marker `slow`.
"""

import copy
import io
import json
import os
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_images import BMP, EXCLUDED, GIF, JPEG, KEPT, PNG, WEBP

import augment
from recipes import DataError, OutputError, UnsafeFileError
from recipes.auditing.facts import inspect
from recipes.auditing.headers import read_header
from recipes.core.archives import load_arrays
from recipes.core.limits import MAX_PIXELS
from recipes.data.tables.reader import read_table
from recipes.networks.keras_file import load_model
from recipes.runs.folder import load

IMAGES = [JPEG, PNG, GIF, WEBP, BMP, *(content for content, _ in KEPT.values()), *(row[0] for row in EXCLUDED.values())]
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@st.composite
def changed(draw, corpus):
    """One of the corpus after one to six edits: a byte or a number overwritten, a piece cut out, repeated or swapped in
    from another."""
    content = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 6))):
        # Headers are short and tell most: half of the edits fall into the first 64 bytes.
        at = draw(st.integers(0, max(0, len(content) - 1)) | st.integers(0, min(64, max(0, len(content) - 1))))
        length = draw(st.integers(1, 64))
        match draw(st.integers(0, 5)):
            case 0:
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                order, size = draw(st.sampled_from(["big", "little"])), draw(st.sampled_from([2, 4]))
                number = draw(st.sampled_from(NUMBERS)) % 256**size
                content[at : at + size] = number.to_bytes(size, order)
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length]
            case 4:
                other = draw(st.sampled_from(corpus))
                content[at:] = other[min(at, len(other)) :]
            case 5:
                del content[at:]
    return bytes(content)


KEYS = ["class_name", "module", "config", "registered_name", "name", "inbound_nodes", "x"]
NAMES = ["", "relu", "Lambda", "os", "keras.layers", "keras", "function", "float32", "../x", "\0", "x" * 999]
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([*NUMBERS, -1, -(2**40), 2**70, 0.5, 1e308, float("nan"), *NAMES]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=6,
)


@st.composite
def altered(draw, tree):
    """A JSON value of which one to three parts are replaced, removed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        place, depth = tree, draw(st.integers(1, 12))
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            depth -= 1
            if depth <= 0 or not isinstance(place[key], dict | list) or not place[key]:
                if draw(st.booleans()):
                    place[key] = draw(VALUES)
                elif isinstance(place, dict):
                    del place[key]
                else:
                    place.append(place[key])
                break
            place = place[key]
    return tree


def network() -> keras.Model:
    images = keras.Input((None, None, 3))
    x = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 1.0, 1.0])(
        keras.layers.Rescaling(1 / 127)(images)
    )
    y = keras.layers.DepthwiseConv2D(3, padding="same")(keras.layers.BatchNormalization()(x))
    x = keras.layers.Concatenate()([x, keras.layers.ReLU()(y), keras.ops.square(x)])
    x = keras.layers.Dropout(0.5)(
        keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    )
    return keras.Model(images, keras.layers.Dense(2)(x))


def members(model: keras.Model) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "m.keras")
        with zipfile.ZipFile(Path(folder) / "m.keras") as archive:
            return {name: archive.read(name) for name in archive.namelist()}


SOUND = members(network())
CONFIG, WEIGHTS = json.loads(SOUND["config.json"]), SOUND["model.weights.h5"]


def packed(parts: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, body in parts.items():
            archive.writestr(name, body)
    return content.getvalue()


def arrays() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, a=np.arange(9.0), b=np.asarray("text"), c=np.zeros((2, 3), np.float32))
    return content.getvalue()


def look_at(content: bytes) -> None:
    header, facts = read_header(content), inspect(content)
    assert bool(facts.error) != bool(facts.fingerprint)
    if facts.fingerprint:
        assert 0 < header.pixels <= MAX_PIXELS and min(facts.size) > 0


def decode(content: bytes) -> None:
    """What training and the exported graph do, only without the audit before it."""
    header = read_header(content)
    if header.pixels <= 10**6:
        with suppress(tf.errors.OpError):
            pixels = augment.decode(tf.constant(content))
            assert pixels.dtype == tf.uint8
            if header.pixels:  # of which the audit would take it
                assert pixels.shape[0] * pixels.shape[1] <= header.pixels


def file(name: str, content: bytes, read, *errors) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        with suppress(*errors):
            read(path)


def open_model(content: bytes) -> None:
    file("m.keras", content, load_model, UnsafeFileError)


def with_config(config) -> None:
    open_model(packed(SOUND | {"config.json": json.dumps(config).encode()}))


def with_weights(content: bytes) -> None:
    open_model(packed(SOUND | {"model.weights.h5": content}))


def open_run(description) -> None:
    file("result.json", json.dumps(description).encode(), lambda path: load(path.parent), OutputError)


TABLE = b'path,label,split\na.jpg,x,train\n"b,c.jpg",y,val\n/etc/passwd,z,\n../b.jpg,x\n'
TARGETS = {
    "images looked at": (look_at, changed(IMAGES), 400),
    "images decoded": (decode, changed(IMAGES), 250),
    "descriptions of models": (with_config, altered(CONFIG), 30),
    "weights of models": (with_weights, changed([WEIGHTS]), 40),
    "archives of models": (open_model, changed([packed(SOUND)]), 40),
    "arrays": (lambda c: file("a.npz", c, load_arrays, UnsafeFileError), changed([arrays()]), 200),
    "tables": (lambda c: file("t.csv", c, lambda p: read_table(p, None), DataError), changed([TABLE]), 200),
    "runs": (open_run, altered({"command": {}, "probe": None, "recipe": {"policy": {}}, "audit": {}}), 50),
}


def fuzz(name: str, times: int) -> None:
    check, content, count = TARGETS[name]
    quiet = settings(max_examples=times * count, derandomize=True, deadline=None, database=None,
                     suppress_health_check=list(HealthCheck))  # fmt: skip
    quiet(given(content)(lambda content: check(content)))()


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz(name):
    fuzz(name, 1)


@pytest.mark.minutes
@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_a_minute(name):
    fuzz(name, 15)


def test_nothing_of_a_run_of_fuzzing_is_left_behind():
    """Files that were refused while a model was built must leave Keras as it was."""
    with_config(CONFIG)
    assert h5py.File(io.BytesIO(WEIGHTS), "r").keys() and os.getcwd()
    assert network()(np.ones((1, 9, 9, 3))).shape == (1, 2)
