"""Capture and restore the state that a later attempt or process needs to continue a training bit for bit."""

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
    """Hold the changes that faults have caused in a training.

    Attributes:
        halvings: Number of times the learning rate was halved.
        parts: Number of parts in which each batch is computed.
        missing: Names of training images that have vanished.
        reasons: One reason for each change.
    """

    halvings: int = 0
    parts: int = 1
    missing: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Adjustments":
        """Return the adjustments from the JSON values that `saved` returned."""
        reasons = saved["reasons"] if "reasons" in saved else saved["told"]  # earlier versions used this key
        return cls(saved["halvings"], saved["parts"], tuple(saved["missing"]), tuple(map(Reason.of, reasons)))

    def saved(self) -> dict[str, Any]:
        """Return the adjustments as JSON values."""
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
        images: Number of images of that epoch already processed.
        done: Whether the training is complete.
        seconds: Duration of the training so far.

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
    """Assign a state that `captured` returned; each batch is then computed in `parts` parts.

    Raises:
        OutputError: If the state from the file `path` does not fit the model (`code` "training.other_version").
    """
    if state["images"]:
        for variable, value in zip(model.metrics_variables, state["metrics"], strict=True):
            variable.assign(value)
    variables = _variables(model)
    if [v.shape for v in variables] != [value.shape for value in state["variables"]]:
        raise OutputError(
            f"{path} does not fit the model, because another version of this library wrote it; delete the run's "
            f"folder to start again",
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
    """Return weights, seeds and optimizer variables, without gradient sums, which are zero between two updates."""
    others = [v for v in model.optimizer.variables if not v.name.endswith("gradient_accumulator")]
    return list({id(v): v for v in (*model.variables, *others)}.values())
