"""The state of a training: all that a later attempt or process needs to continue it bit for bit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from recipes.errors import OutputError
from recipes.planning.reason import Reason
from recipes.training.callbacks import NotFinite


@dataclass(frozen=True)
class Adjustments:
    """What faults have changed in a training.

    Attributes:
        halvings: How often the learning rate was halved.
        parts: Number of parts in which each batch is computed.
        missing: Names of training images that have vanished.
        reasons: One for each change.
    """

    halvings: int = 0
    parts: int = 1
    missing: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Adjustments":
        """Return the adjustments that `saved` has described."""
        reasons = saved["reasons"] if "reasons" in saved else saved["told"]  # the name in earlier versions
        return cls(saved["halvings"], saved["parts"], tuple(saved["missing"]), tuple(map(Reason.of, reasons)))

    def saved(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "halvings": self.halvings, "parts": self.parts, "missing": [*self.missing],
            "reasons": [asdict(reason) for reason in self.reasons],
        }  # fmt: skip

    def because(self, reason: Reason, **changes: Any) -> "Adjustments":
        return replace(self, reasons=(*self.reasons, reason), **changes)


def captured(
    model: keras.Model, callbacks: Mapping[str, Any], adjustments: Adjustments, *, epoch: int, images: int, done: bool,
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the state between two updates, as a tree that `Checkpoints` can save.

    Args:
        model: The compiled model.
        callbacks: Callbacks by name; those with `state()` and `restore(state)` are part of the state.
        adjustments: The changes that are in effect.
        epoch: Index of the present epoch.
        images: Number of images of that epoch that are done.
        done: Whether the training is complete.
        seconds: Time that the training has taken so far.

    Raises:
        NotFinite: If a weight is NaN or infinite.
    """
    stateful = {n: c for n, c in callbacks.items() if hasattr(c, "state") and hasattr(c, "restore")}
    values = []
    for variable in _variables(model):
        value = np.array(keras.ops.convert_to_numpy(variable))
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise NotFinite(f"{variable.path} became {value[~np.isfinite(value)][0]}")
        values.append(np.array(value // adjustments.parts) if variable.name == "iteration" else value)
    return {
        "epoch": epoch, "images": images, "done": done, "changes": adjustments.saved(), "variables": values,
        "metrics": [np.array(keras.ops.convert_to_numpy(v)) for v in model.metrics_variables],
        "history": {name: [float(v) for v in row] for name, row in model.history.history.items()},
        "callbacks": {name: callback.state() for name, callback in stateful.items()}, "seconds": seconds,
    }  # fmt: skip


def restore(
    model: keras.Model, callbacks: Mapping[str, Any], parts: int, state: Mapping[str, Any], path: Path | None
) -> None:
    """Assign a state that `captured` has returned; `parts`: in which each batch is computed from now on.

    Raises:
        OutputError: If the state, which was read from `path`, does not fit the model (`code` "training.other_version").
    """
    if state["images"]:
        for variable, value in zip(model.metrics_variables, state["metrics"], strict=True):
            variable.assign(value)
    variables = _variables(model)
    if [v.shape for v in variables] != [value.shape for value in state["variables"]]:
        raise OutputError(
            f"{path} was written by another version of this library; delete the run to start again",
            code="training.other_version",
            path=path,
        )
    for variable, value in zip(variables, state["variables"], strict=True):
        variable.assign(value * parts if variable.name == "iteration" else value)
    for variable in model.optimizer.variables:
        if variable.name.endswith("gradient_accumulator"):
            variable.assign(keras.ops.zeros(variable.shape, variable.dtype))
    for name, callback in callbacks.items():
        if name in state["callbacks"]:
            callback.restore(state["callbacks"][name])
    rows = state["history"]
    model.history.history = {name: list(values) for name, values in rows.items()}
    model.history.epoch = list(range(max(map(len, rows.values()), default=0)))


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, seeds, and the optimizer's; not the sums of gradients, which are zero between two updates."""
    others = [v for v in model.optimizer.variables if not v.name.endswith("gradient_accumulator")]
    return list({id(v): v for v in (*model.variables, *others)}.values())
