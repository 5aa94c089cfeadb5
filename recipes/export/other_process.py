"""SavedModel, ONNX and LiteRT are written by Keras's TensorFlow backend: where another one runs, by a process of its
own, which loads the run."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from recipes.errors import RecipesError
from recipes.result import Result

_START = "import sys; sys.path.insert(0, sys.argv[1]); from recipes.export.other_process import main; main(sys.argv[2])"


def write(result: Result, kind: str, path: Path, options, calibration) -> None:
    """Write `result` to `path` as `recipes.export.export.write` would on TensorFlow.

    options:     `saved_model.Options`.
    calibration: () → images that int8 activations of LiteRT are scaled by.

    Raises: RecipesError or OSError, whichever the process meets.
    """
    with tempfile.TemporaryDirectory(prefix="recipes-export-") as folder:
        result.save(Path(folder, "run"))
        if kind == "litert" and options.quantize == "int8":
            np.save(Path(folder, "calibration.npy"), calibration())
        task = {"kind": kind, "path": str(path), "options": asdict(options)}
        Path(folder, "task.json").write_text(json.dumps(task), encoding="utf-8")
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-c", _START, str(Path(__file__).parents[1]), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        error = Path(folder, "error.json")
        if error.exists():
            ours, told = json.loads(error.read_text(encoding="utf-8"))
            raise (RecipesError if ours else OSError)(told)
        if done.returncode:
            end = "\n".join(done.stderr.strip().splitlines()[-4:])
            raise RecipesError(f"the process that exports on TensorFlow failed (exit code {done.returncode}): {end}")


def main(folder: str) -> None:
    """That process."""
    from recipes.export.export import write as write_here
    from recipes.export.saved_model import Options
    from recipes.runs.folder import load

    task = json.loads(Path(folder, "task.json").read_text(encoding="utf-8"))
    try:
        calibration = lambda: np.load(Path(folder, "calibration.npy"))  # noqa: E731
        write_here(
            load(Path(folder, "run")), task["kind"], Path(task["path"]), Options(**task["options"]), calibration
        )  # fmt: skip
    except (RecipesError, OSError) as error:
        told = json.dumps([isinstance(error, RecipesError), str(error)])
        Path(folder, "error.json").write_text(told, encoding="utf-8")
