"""What the machine offers: GPU memory on demand and reduced precision where the device is made for it."""

import os

import keras
import tensorflow as tf


def prepare_devices() -> str:
    """Switch on memory growth and mixed precision when there is a GPU; returns the dtype policy in words.

    bfloat16 from compute capability 8.0 on, float16 below; float32 on CPUs, where reduced precision is slower. A dtype
    policy that the caller has set stays.
    """
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu) and not _initialised():
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus and keras.config.dtype_policy().name == "float32":
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        keras.config.set_dtype_policy("mixed_bfloat16" if capability >= (8, 0) else "mixed_float16")
    return keras.config.dtype_policy().name


def accelerator() -> str | None:
    """The kind of device, other than the CPU, that Keras's backend trains on: "GPU"; None where there is none."""
    return "GPU" if tf.config.list_physical_devices("GPU") else None


def _initialised() -> bool:
    """Whether TensorFlow has created its devices, after which memory growth can no longer be set."""
    from tensorflow.python.eager import context

    return context.context()._initialized or bool(os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH"))


def free_memory() -> int | None:
    """Bytes free on the device that trains: the GPU's, else the machine's (Linux); None where it is not known."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        import subprocess

        try:
            query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
            told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
            return int(told.split()[0]) * 2**20
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
            return None
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) * 2**10
    except (OSError, KeyError, ValueError):
        return None
