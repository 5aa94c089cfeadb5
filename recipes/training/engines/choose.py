"""Choose the engine for Keras's backend and for the devices that train together."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import keras

from recipes.training.engines.base import Engine
from recipes.training.engines.mirrored import MirroredTeam
from recipes.training.engines.team import chosen_devices, current_team
from recipes.training.engines.tensorflow import TensorflowEngine


def engine_for(model: keras.Model) -> Engine:
    """Return the engine for Keras's backend and for the devices that train together.

    JAX and torch are imported only if Keras runs on them.
    """
    team, backend = current_team(), keras.backend.backend()
    if isinstance(team, MirroredTeam):
        return team.engine(model)
    if backend == "jax":
        from recipes.training.engines.jax import JaxEngine
        from recipes.training.engines.jax_parallel import JaxTeam

        return JaxEngine(model, team if isinstance(team, JaxTeam) else None)
    if backend == "torch":
        from recipes.training.engines.torch import TorchEngine

        return TorchEngine(model)
    return TensorflowEngine(model)


def training_together(devices: int | str | Sequence[str] | None) -> AbstractContextManager:
    """Return a context in which `devices` train together, see `team.chosen_devices`.

    The context has no effect if `devices` is the one device that trains by default.
    """
    names = chosen_devices(devices)
    if names == chosen_devices(None)[:1]:
        return nullcontext()
    if keras.backend.backend() == "jax":
        from recipes.training.engines.jax_parallel import JaxTeam

        return JaxTeam(names)
    return MirroredTeam(names)
