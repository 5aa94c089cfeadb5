"""The devices that Keras's backend trains on, their free memory, and their fastest precision."""

import logging
import os
import re
import subprocess
from typing import NamedTuple

import keras
import tensorflow as tf

logger = logging.getLogger(__name__)


class Devices(NamedTuple):
    """The accelerators that the backend trains on.

    Attributes:
        kind: "GPU", "TPU", or None if there is only a CPU.
        capabilities: Compute capability of each device; None if it is unknown, as for AMD's GPUs.
    """

    kind: str | None
    capabilities: tuple[tuple[int, int] | None, ...] = ()

    @property
    def policy(self) -> str:
        """Dtype policy that is fast on all devices; the oldest device decides."""
        if self.kind == "TPU":
            return "mixed_bfloat16"
        oldest = min((capability or (7, 0) for capability in self.capabilities), default=(0, 0))
        return "mixed_bfloat16" if oldest >= (8, 0) else "mixed_float16" if oldest >= (7, 0) else "float32"


def prepare_devices() -> str:
    """Configure the devices and choose the precision.

    The policy is mixed bfloat16 on TPUs and on GPUs of compute capability 8.0 and above, mixed float16 on GPUs from 7.0
    (tensor cores) and on GPUs of unknown capability. It is float32 on older GPUs and on CPUs, where reduced precision
    is slower. If the caller has set a dtype policy other than float32, that policy stays. TensorFlow allocates GPU
    memory as needed. If another backend trains, TensorFlow only reads images and leaves the GPUs to that backend.

    Returns:
        The name of Keras's dtype policy.
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
    """Return the kind of accelerator that Keras's backend trains on: "GPU" or "TPU", or None if there is only a CPU."""
    return _devices().kind


def _devices() -> Devices:
    find = {"tensorflow": _tensorflow_devices, "jax": _jax_devices, "torch": _torch_devices}
    return find[keras.backend.backend()]()


def _tensorflow_devices() -> Devices:
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return Devices("GPU" if gpus else None, tuple(each.get("compute_capability") for each in details))


def _jax_devices() -> Devices:
    import jax

    devices = jax.local_devices()
    kind = devices[0].platform.upper()
    if kind not in ("GPU", "TPU"):
        return Devices(None)
    return Devices(kind, tuple(_capability(str(getattr(device, "compute_capability", ""))) for device in devices))


def _capability(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


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
            f"TensorFlow has already reserved the GPU's memory, which Keras's backend {keras.backend.backend()} needs. "
            "Call recipes before TensorFlow computes anything, or set TF_FORCE_GPU_ALLOW_GROWTH=true."
        )


def _initialised() -> bool:
    """Return whether TensorFlow has created its devices. Afterwards, memory growth and visibility cannot change."""
    from tensorflow.python.eager import context

    return context.context()._initialized  # pyright: ignore[reportOptionalMemberAccess]  # creates the context


def free_memory() -> int | None:
    """Return the free bytes of the fullest GPU, or those of the machine if it has no GPU; None if unknown."""
    if accelerator():
        free = {"tensorflow": _free_for_tensorflow, "jax": _free_for_jax, "torch": _free_for_torch}
        return free[keras.backend.backend()]()
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError, ValueError):
        return None


def _free_for_tensorflow() -> int | None:
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):  # nvidia-smi also lists hidden GPUs
        query.append(f"--id={visible}")
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return min(map(int, answer.split())) * 2**20 + _reserved_by_tensorflow()
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


def _reserved_by_tensorflow() -> int:
    """Return the smallest number of unused bytes that TensorFlow has reserved on any GPU and can use again."""
    pools = [tf.config.experimental.get_memory_info(gpu.name) for gpu in tf.config.list_logical_devices("GPU")]
    return min((pool["peak"] - pool["current"] for pool in pools), default=0)


def _free_for_jax() -> int | None:
    """Return the free bytes of the memory that JAX reserved when it started."""
    import jax

    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    known = all({"bytes_limit", "bytes_in_use"} <= each.keys() for each in stats)
    return min(each["bytes_limit"] - each["bytes_in_use"] for each in stats) if known else None


def _free_for_torch() -> int:
    import torch

    return min(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
