"""Several devices that share every update: which devices they are, and which team trains at the moment."""

from abc import ABC
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from typing import Self

import keras
import tensorflow as tf

from recipes.core.devices import accelerator
from recipes.errors import RecipeError

_TEAM: ContextVar["DeviceTeam | None"] = ContextVar("team", default=None)


class DeviceTeam(ABC):
    """Devices that share every update. Models that are trained inside `with team:` are trained by all of them.

    Attributes:
        replicas: Number of devices on all hosts.
        hosts: Number of hosts.
    """

    replicas: int = 1
    hosts: int = 1
    _token: Token

    def __enter__(self) -> Self:
        self._token = _TEAM.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _TEAM.reset(self._token)


def current_team() -> DeviceTeam | None:
    """Return the team that trains here; None: one device."""
    return _TEAM.get()


def trainers() -> str:
    """Return what trains here, such as "2 GPU": with another number of devices the weights differ in bits."""
    team, kind = current_team(), accelerator() or "CPU"
    if team is None:
        return f"1 {kind}"
    return f"{team.replicas} {kind}" + (f" on {team.hosts} hosts" if team.hosts > 1 else "")


def listed_devices(kind: str) -> list[str]:
    """Return the names of the devices of a kind ("GPU" or "CPU") that Keras's backend sees."""
    if keras.backend.backend() == "tensorflow":
        return [":".join(device.name.split(":")[-2:]) for device in tf.config.list_logical_devices(kind)]
    if keras.backend.backend() == "jax":
        there = keras.distribution.list_devices()  # GPUs, or TPUs, or the CPU's
        return [name.upper() for name in there if name.startswith("cpu") == (kind == "CPU")]
    return [f"{kind}:0"] if (kind == "GPU") == (accelerator() == "GPU") else []  # torch trains on one


def chosen_devices(
    devices: int | str | Sequence[str] | None, listed: Callable[[str], list[str]] = listed_devices
) -> tuple[str, ...]:
    """Return the names of the devices that train, such as ("GPU:0", "GPU:1").

    Args:
        devices: None (all GPUs, or the CPU where there is none), a number of devices, or names.
        listed: Returns the names of the devices of a kind.

    Raises:
        RecipeError: For devices that do not exist, for none, and for a device that is named twice.
    """
    gpus = listed("GPU")
    available = gpus or listed("CPU")
    if devices is None:
        return tuple(gpus or available[:1])
    if isinstance(devices, int) and not isinstance(devices, bool):
        chosen = available[:devices] if 0 < devices <= len(available) else None
    else:
        chosen = [devices] if isinstance(devices, str) else list(devices) if isinstance(devices, list | tuple) else None
    if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*available}:
        raise RecipeError(
            f"devices is {devices!r}; expected a number, or names, of {available}, each once; None takes "
            f"{'all of them' if gpus else 'the first'}"
        )
    return tuple(chosen)
