"""The same contracts on JAX and torch, each in a process of its own: a process has one backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "test_first_order.py",
    "test_schedules.py",
    "test_discriminative.py",
    "test_optimizer_contracts.py",
    "test_sharpness_aware.py",
    "test_weight_averaging.py",
    "test_full_batch.py",
]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backend(backend):
    pytest.importorskip(backend)
    files = [str(ROOT / "tests" / "optimizers" / name) for name in FILES]
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # JAX compiles every small thing
    # The other contracts differ from these by their rule alone, which test_first_order.py checks; layerwise_decay
    # reads a graph and computes nothing.
    few = ["-k", "not layerwise and (not test_contract or (Adam and not Discriminative) or AdamW)"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *few, *files]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
