"""Name the devices that share every update, and keep the team that currently trains."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Self

import keras
import tensorflow as tf

from recipes.core.devices import accelerator
from recipes.errors import RecipeError

_TEAM: ContextVar["DeviceTeam | None"] = ContextVar("team", default=None)


class DeviceTeam(ABC):
    """Train models inside `with team:` on several devices that share every update.

    Attributes:
        replicas: Number of devices on all hosts.
        hosts: Number of hosts.
    """

    hosts: int = 1
    _token: Token["DeviceTeam | None"]

    @property
    @abstractmethod
    def replicas(self) -> int: ...

    def __enter__(self) -> Self:
        self._token = _TEAM.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _TEAM.reset(self._token)


def current_team() -> DeviceTeam | None:
    """Return the team that trains in this context; None if one device trains."""
    return _TEAM.get()


def trainers() -> str:
    """Return the number and kind of devices that train, such as "2 GPU".

    A different number of devices changes the last bits of the weights.
    """
    team, kind = current_team(), accelerator() or "CPU"
    if team is None:
        return f"1 {kind}"
    return f"{team.replicas} {kind}" + (f" on {team.hosts} hosts" if team.hosts > 1 else "")


def listed_devices(kind: str) -> list[str]:
    """Return the names of the devices of a kind ("GPU" or "CPU") that Keras's backend sees."""
    if keras.backend.backend() == "tensorflow":
        return [":".join(device.name.split(":")[-2:]) for device in tf.config.list_logical_devices(kind)]
    if keras.backend.backend() == "jax":
        names = keras.distribution.list_devices()  # lists GPUs, TPUs or CPUs
        return [name.upper() for name in names if name.startswith("cpu") == (kind == "CPU")]
    return [f"{kind}:0"] if (kind == "GPU") == (accelerator() == "GPU") else []  # torch trains on one device only


def chosen_devices(
    devices: int | str | Sequence[str] | None, listed: Callable[[str], list[str]] = listed_devices
) -> tuple[str, ...]:
    """Return the names of the devices that train, such as ("GPU:0", "GPU:1").

    Args:
        devices: None (all GPUs, or the CPU on a machine without one), a number of devices, or names.
        listed: A function that returns the names of the devices of a kind.

    Raises:
        RecipeError: If a device does not exist, if none is given, or if one is named twice (`code` "training.devices").
    """
    gpus = listed("GPU")
    available = gpus or listed("CPU")
    if devices is None:
        return tuple(gpus or available[:1])
    chosen: list[str] = []
    if isinstance(devices, str):
        chosen = [devices]
    elif isinstance(devices, list | tuple):
        chosen = list(devices)
    elif isinstance(devices, int) and not isinstance(devices, bool) and 0 < devices <= len(available):
        chosen = available[:devices]
    if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*available}:
        raise RecipeError(
            f"devices is {devices!r}; expected a number of devices, or names from {available}, each at most once. "
            f"devices=None selects {'all of them' if gpus else 'the first'}",
            code="training.devices", value=devices, available=tuple(available),
        )  # fmt: skip
    return tuple(chosen)
