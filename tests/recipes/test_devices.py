"""The precision, the default network and the free memory follow the device that Keras's backend trains on."""

import logging
import os
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from recipes.core import devices
from recipes.networks import backbones

jax = pytest.importorskip("jax")
torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def float32_before_and_after():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def machine(monkeypatch):
    """A function that makes the GPUs of these compute capabilities the only accelerators of a backend."""

    def fake(backend, *capabilities, platform="gpu", left=(2**34,)):
        monkeypatch.setattr(keras.backend, "backend", lambda: backend)
        gpus = [f"GPU:{i}" for i in range(len(capabilities))]
        seen = gpus if backend == "tensorflow" else []
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: seen if kind == "GPU" else ["CPU:0"])
        details = {gpu: {"compute_capability": c} if c else {} for gpu, c in zip(gpus, capabilities, strict=True)}
        monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
        monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda gpu: True)
        text = [c if isinstance(c, str | None) else f"{c[0]}.{c[1]}" for c in capabilities]
        stats = [{"bytes_limit": 2**35, "bytes_in_use": 2**35 - free} for free in left]
        made = [
            SimpleNamespace(platform=platform, compute_capability=c, memory_stats=lambda s=s: s)
            for c, s in zip(text, stats * len(text), strict=False)
        ]
        monkeypatch.setattr(jax, "local_devices", lambda: made or [SimpleNamespace(platform="cpu")])
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: (left[i], 2**35))

    return fake


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        ([(9, 0)], "mixed_bfloat16"),
        ([(8, 0)], "mixed_bfloat16"),
        ([(12, 0)], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"),
        ([(7, 0)], "mixed_float16"),
        ([(6, 1)], "float32"),
        ([(9, 0), (7, 5)], "mixed_float16"),
        ([], "float32"),
    ],
)
def test_the_oldest_gpu_decides_the_precision(machine, backend, capabilities, policy):
    machine(backend, *capabilities)
    assert devices.prepare_devices() == policy
    assert keras.config.dtype_policy().name == policy
    assert devices.accelerator() == ("GPU" if capabilities else None)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_callers_policy_stays(machine, backend):
    machine(backend, (9, 0))
    keras.config.set_dtype_policy("mixed_float16")
    assert devices.prepare_devices() == "mixed_float16"


@pytest.mark.parametrize(("backend", "capability"), [("tensorflow", None), ("jax", "gfx90a"), ("jax", None)])
def test_a_gpu_of_unknown_capability_takes_float16(machine, backend, capability):
    machine(backend, capability)
    assert devices.prepare_devices() == "mixed_float16"


def test_a_tpu_takes_bfloat16(machine):
    machine("jax", None, platform="tpu")
    assert devices.prepare_devices() == "mixed_bfloat16"
    assert devices.accelerator() == "TPU"


@pytest.mark.parametrize("platform", ["METAL", "cpu"])
def test_other_platforms_of_jax_count_as_none(machine, platform):
    machine("jax", None, platform=platform)
    assert devices.prepare_devices() == "float32"
    assert devices.accelerator() is None


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_default_network_follows_the_backends_device(machine, backend):
    machine(backend, (9, 0))
    assert backbones.default_name() == "EfficientNetV2B0"
    machine(backend)
    assert backbones.default_name() == "MobileNetV3Small"


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize(("initialised", "forced"), [(False, False), (True, False), (True, True)])
def test_tensorflow_leaves_the_gpus_to_another_backend(machine, monkeypatch, caplog, backend, initialised, forced):
    machine(backend, (9, 0))
    hidden = []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *arguments: hidden.append(arguments))
    monkeypatch.setattr(devices, "_initialised", lambda: initialised)
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH", raising=False)
    if forced:
        monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with caplog.at_level(logging.INFO, "recipes"):
        devices.prepare_devices()
    assert hidden == ([] if initialised else [([], "GPU")])
    assert ("TF_FORCE_GPU_ALLOW_GROWTH=true" in caplog.text) == (initialised and not forced)


@pytest.mark.parametrize("initialised", [False, True])
def test_tensorflows_memory_grows_where_it_still_can(machine, monkeypatch, initialised):
    machine("tensorflow", (9, 0), (9, 0))
    grown = []
    monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda gpu: False)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on)))
    monkeypatch.setattr(devices, "_initialised", lambda: initialised)
    devices.prepare_devices()
    assert grown == ([] if initialised else [("GPU:0", True), ("GPU:1", True)])


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_free_memory_is_that_of_the_fullest_gpu(machine, backend):
    machine(backend, (9, 0), (9, 0), left=(2**34, 2**33))
    assert devices.free_memory() == 2**33


def test_free_memory_where_jax_reports_none(machine, monkeypatch):
    machine("jax", (9, 0))
    monkeypatch.setattr(jax.local_devices()[0], "memory_stats", lambda: None)
    assert devices.free_memory() is None


@pytest.mark.parametrize(
    ("answer", "free"), [("echo 9000; echo 8000", 8000 * 2**20), ("echo '[N/A]'", None), ("exit 9", None)]
)
def test_free_memory_reported_by_the_driver(machine, monkeypatch, tmp_path, answer, free):
    machine("tensorflow", (9, 0))
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n{answer}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert devices.free_memory() == free
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [SimpleNamespace(name="GPU:0")])
    pool = {"peak": 7 * 2**20, "current": 2**20}  # what TensorFlow has taken and does not use is free for it
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", lambda name: pool)
    assert devices.free_memory() == (free and free + 6 * 2**20)
    assert (tmp_path / "asked").read_text().split()[-1] == "--id=2,3"


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="needs Linux")
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_free_memory_without_a_gpu_is_the_machines(machine, backend):
    machine(backend)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert total / 100 < devices.free_memory() < total
