"""Write formats that need Keras's TensorFlow backend in a new process, if this process uses another backend."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from recipes.errors import RecipesError
from recipes.export.fresh_process import run_python
from recipes.export.options import ExportOptions
from recipes.runs.folder import save
from recipes.runs.record import Record

_START = "import sys; sys.path.insert(0, sys.argv[1]); from recipes.export.child import main; main(sys.argv[2])"
_ROOT = Path(__file__).parents[2]  # the folder that contains the package `recipes`


def write(result: Record, options: ExportOptions, path: Path, calibration: np.ndarray | None) -> None:
    """Write `result` to `path` as `recipes.export.export.write` would on TensorFlow.

    Raises:
        RecipesError: If the format cannot represent the network, or the process fails.
        OSError: If the process cannot write.
    """
    with tempfile.TemporaryDirectory(prefix="recipes-export-") as folder:
        save(result, Path(folder, "run"))
        if calibration is not None:
            np.save(Path(folder, "calibration.npy"), calibration)
        task = {"path": str(path), "options": asdict(options)}
        Path(folder, "task.json").write_text(json.dumps(task), encoding="utf-8")
        environment = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
        failed = RecipesError("the process that exports on TensorFlow failed", code="export.process")
        try:
            run_python(["-c", _START, str(_ROOT), folder], environment, failed)
        finally:
            _raise_reported(Path(folder, "error.json"))


def _raise_reported(file: Path) -> None:
    """Raise the error that the process has written to a file, if any."""
    if not file.exists():
        return
    error = json.loads(file.read_text(encoding="utf-8"))
    if error["code"] is None:
        raise OSError(error["message"])
    raise RecipesError(error["message"], code=error["code"])
