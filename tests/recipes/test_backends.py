"""The whole way on JAX and torch, each in a process of its own, against TensorFlow with the same weights."""

import os
import subprocess
import sys
from pathlib import Path

import elsewhere
import numpy as np
import pytest
import tensorflow as tf
from makers import jpeg

import recipes
from recipes.data.sources import unlabelled

TESTS = Path(__file__).resolve().parents[1]


def start_elsewhere(backend: str, root: Path, *how: str) -> None:
    pytest.importorskip(backend)
    environment = os.environ | {
        "KERAS_BACKEND": backend, "RECIPES_CACHE": str(root / "cache"), "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # JAX compiles every small thing
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }  # fmt: skip
    command = [sys.executable, str(TESTS / "elsewhere.py"), str(root), *how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def run_elsewhere(backend: str, root: Path, brought: recipes.Result, *how: str) -> dict:
    brought.save(root / "brought")
    start_elsewhere(backend, root, *how)
    with np.load(root / "told.npz") as arrays:
        told = dict(arrays)
    expected = brought.probabilities(unlabelled(elsewhere.MORE[0]))
    np.testing.assert_allclose(told["brought"], expected, atol=1e-4)
    return told


def check_the_same_here(root: Path, told: dict) -> None:
    """Its run, loaded on TensorFlow, answers what it answered there."""
    outputs = elsewhere.seen(recipes.load(root / "run"))
    assert sum(name.startswith("slope") for name in outputs) == 6
    for name, expected in outputs.items():
        np.testing.assert_allclose(told[name], expected, atol=1e-4, rtol=1e-3, err_msg=name)
    assert (told["spread"] > 0).all()


@pytest.mark.slow
def test_jax(tmp_path, trained):
    told = run_elsewhere("jax", tmp_path, trained[0])
    check_the_same_here(tmp_path, told)
    served = tf.saved_model.load(tmp_path / "serving" / "1").signatures["serving_default"]
    found = served(image_bytes=tf.constant([jpeg(image) for image in elsewhere.MORE[0]]))
    assert not any(found["error"].numpy())
    np.testing.assert_allclose(found["probabilities"], told["served"], atol=1e-4)


@pytest.mark.slow
def test_torch(tmp_path, trained):
    told = run_elsewhere("torch", tmp_path, trained[0])
    check_the_same_here(tmp_path, told)
    assert "KERAS_BACKEND=tensorflow recipes export RUN" in str(told["refused"])
    assert not (tmp_path / "serving").exists()


@pytest.mark.minutes
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_everything(backend, tmp_path, trained):
    check_the_same_here(tmp_path, run_elsewhere(backend, tmp_path, trained[0], "all"))


@pytest.mark.minutes
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_options_together(backend, tmp_path):
    """Input workers, snapshots, stops and mixed float16 change no bit that they must not; ensemble, soup, search and
    ablate end as they should."""
    start_elsewhere(backend, tmp_path, "together")
