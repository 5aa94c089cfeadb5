"""Save and load a probe: its arrays in an .npz file, its other values in the description of the run."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from recipes.core.archives import load_arrays
from recipes.probing.logistic import Linear
from recipes.probing.probe import MirrorTest, Probe, StageResult


def probe_facts(probe: Probe) -> dict:
    """Return the values of a probe that `save_probe` does not write, as JSON values."""
    facts = {name: getattr(probe, name) for name in ("seconds", "image_seconds", "origin")}
    return facts | {"mirrors": asdict(probe.mirrors)}


def save_probe(probe: Probe, path: Path) -> None:
    """Write the arrays of a probe's stages."""
    arrays = {}
    for i, stage in enumerate(probe.stages):
        for field in fields(StageResult):
            if field.name != "classifier":
                arrays[f"{i}.{field.name}"] = np.asarray(getattr(stage, field.name))
        arrays |= {f"{i}.{name}": np.asarray(getattr(stage.classifier, name)) for name in ("kernel", "bias", "l2")}
    np.savez_compressed(path, **arrays)


def load_probe(path: Path, mirrors: dict, **facts: Any) -> Probe:
    """Read a probe from the file of `save_probe` and the values of `probe_facts`."""
    arrays = load_arrays(path)
    count = len({name.split(".")[0] for name in arrays})
    stages = tuple(_load_stage(arrays, i) for i in range(count))
    return Probe(stages, mirrors=MirrorTest(**mirrors), **facts)


def _load_stage(arrays: Mapping[str, np.ndarray], i: int) -> StageResult:
    values: dict[str, Any] = {name: arrays[f"{i}.{name}"] for name in ("out_of_fold", "losses")}
    values |= {
        name: arrays[f"{i}.{name}"].item() for name in ("name", "features", "accuracy", "seconds", "nll", "logme")
    }
    values |= {name: tuple(arrays[f"{i}.{name}"].tolist()) for name in ("interval", "taps", "mirror_gain")}
    classifier = Linear(arrays[f"{i}.kernel"], arrays[f"{i}.bias"], arrays[f"{i}.l2"].item())
    return StageResult(**values, classifier=classifier)
