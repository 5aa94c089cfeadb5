"""Write formats that need Keras's TensorFlow backend by a process of its own, where another backend runs here."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from recipes.errors import RecipesError
from recipes.runs.folder import save
from recipes.runs.record import Record

_START = "import sys; sys.path.insert(0, sys.argv[1]); from recipes.export.child import main; main(sys.argv[2])"
_ROOT = Path(__file__).parents[2]  # the folder that holds the package `recipes`


def write(result: Record, kind: str, path: Path, options, calibration) -> None:
    """Write `result` to `path` as `recipes.export.export.write` would on TensorFlow.

    options:     `saved_model.Options`.
    calibration: () → images that int8 activations of LiteRT are scaled by.

    Raises: RecipesError or OSError, whichever the process meets.
    """
    with tempfile.TemporaryDirectory(prefix="recipes-export-") as folder:
        save(result, Path(folder, "run"))
        if kind == "litert" and options.quantize == "int8":
            np.save(Path(folder, "calibration.npy"), calibration())
        task = {"kind": kind, "path": str(path), "options": asdict(options)}
        Path(folder, "task.json").write_text(json.dumps(task), encoding="utf-8")
        environment = os.environ | {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        command = [sys.executable, "-c", _START, str(_ROOT), folder]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        error = Path(folder, "error.json")
        if error.exists():
            ours, told = json.loads(error.read_text(encoding="utf-8"))
            raise (RecipesError if ours else OSError)(told)
        if done.returncode:
            end = "\n".join(done.stderr.strip().splitlines()[-4:])
            raise RecipesError(f"the process that exports on TensorFlow failed (exit code {done.returncode}): {end}")
