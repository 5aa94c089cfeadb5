"""What the machine offers: the device that Keras's backend trains on, its memory, and the precision it is made for."""

import logging
import os
import subprocess
from typing import NamedTuple

import keras
import tensorflow as tf

logger = logging.getLogger(__name__)


class Devices(NamedTuple):
    """What the backend trains on, the CPU aside: "GPU", "TPU" or None, and the compute capability of each (None where
    it is not known, as of AMD's)."""

    kind: str | None
    capabilities: tuple[tuple[int, int] | None, ...] = ()

    @property
    def policy(self) -> str:
        """The dtype policy that all of them are fast in: the oldest one decides."""
        if self.kind == "TPU":
            return "mixed_bfloat16"
        oldest = min((capability or (7, 0) for capability in self.capabilities), default=(0, 0))
        return "mixed_bfloat16" if oldest >= (8, 0) else "mixed_float16" if oldest >= (7, 0) else "float32"


def prepare_devices() -> str:
    """Make the devices ready and choose the precision; returns the dtype policy in words.

    On TPUs and GPUs of compute capability 8.0 and more it is mixed bfloat16, on GPUs from 7.0 on (tensor cores), and on
    those of unknown capability, mixed float16; float32 on older ones and on CPUs, where reduced precision is slower. A
    dtype policy other than float32 that the caller has set stays. TensorFlow takes GPU memory as it needs it. Where
    another backend trains, TensorFlow only reads images, and leaves the GPUs to that backend.
    """
    if keras.backend.backend() == "tensorflow":
        _grow_as_needed()
    else:
        _keep_tensorflow_off()
    devices = _devices()
    if devices.kind and keras.config.dtype_policy().name == "float32":
        keras.config.set_dtype_policy(devices.policy)
    return keras.config.dtype_policy().name


def accelerator() -> str | None:
    """The kind of device that Keras's backend trains on: "GPU", "TPU"; None where there is only a CPU."""
    return _devices().kind


def _devices() -> Devices:
    return {"tensorflow": _tensorflow_devices, "jax": _jax_devices, "torch": _torch_devices}[keras.backend.backend()]()


def _tensorflow_devices() -> Devices:
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return Devices("GPU" if gpus else None, tuple(each.get("compute_capability") for each in details))


def _jax_devices() -> Devices:
    import jax

    devices = jax.local_devices()
    kind = devices[0].platform.upper()
    capabilities = (str(getattr(device, "compute_capability", "")).split(".") for device in devices)
    known = (tuple(map(int, c)) if len(c) == 2 and all(map(str.isdecimal, c)) else None for c in capabilities)
    return Devices(kind, tuple(known)) if kind in ("GPU", "TPU") else Devices(None)


def _torch_devices() -> Devices:
    import torch

    if not torch.cuda.is_available():
        return Devices(None)
    return Devices("GPU", tuple(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())))


def _grow_as_needed() -> None:
    for gpu in tf.config.get_visible_devices("GPU"):
        if not tf.config.experimental.get_memory_growth(gpu) and not _initialised():
            tf.config.experimental.set_memory_growth(gpu, True)


def _keep_tensorflow_off() -> None:
    if not tf.config.get_visible_devices("GPU"):
        return
    if not _initialised():
        tf.config.set_visible_devices([], "GPU")
    elif not os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH"):
        logger.info(
            f"TensorFlow has taken the GPU's memory before Keras's backend {keras.backend.backend()} could: call "
            "recipes before TensorFlow computes anything, or set TF_FORCE_GPU_ALLOW_GROWTH=true"
        )


def _initialised() -> bool:
    """Whether TensorFlow has created its devices, after which neither memory growth nor visibility can be set."""
    from tensorflow.python.eager import context

    return context.context()._initialized


def free_memory() -> int | None:
    """Bytes free on the device that trains: of the fullest GPU, else the machine's (Linux); None if it is not known."""
    if accelerator():
        return {"tensorflow": _told_by_driver, "jax": _left_to_jax, "torch": _left_to_torch}[keras.backend.backend()]()
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError, ValueError):
        return None


def _told_by_driver() -> int | None:
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):  # nvidia-smi sees the others, too
        query.append(f"--id={visible}")
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return min(map(int, told.split())) * 2**20 + _taken_and_free()
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


def _taken_and_free() -> int:
    """Bytes that TensorFlow has taken of every GPU, never gives back, and will use again, at least."""
    pools = [tf.config.experimental.get_memory_info(gpu.name) for gpu in tf.config.list_logical_devices("GPU")]
    return min((pool["peak"] - pool["current"] for pool in pools), default=0)


def _left_to_jax() -> int | None:
    """JAX takes most of the memory when it starts: what counts is what is left of that."""
    import jax

    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    known = all({"bytes_limit", "bytes_in_use"} <= each.keys() for each in stats)
    return min(each["bytes_limit"] - each["bytes_in_use"] for each in stats) if known else None


def _left_to_torch() -> int:
    import torch

    return min(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
