"""Load a run and export it on Keras's TensorFlow backend, in the process that `other_process` starts."""

import json
from pathlib import Path

import numpy as np

from recipes.errors import RecipesError
from recipes.export.export import write
from recipes.export.options import ExportOptions
from recipes.runs.folder import load


def main(folder: str) -> None:
    """Do the task that `folder` describes; write a RecipesError or OSError to error.json in the folder."""
    task = json.loads(Path(folder, "task.json").read_text(encoding="utf-8"))
    images = Path(folder, "calibration.npy")
    try:
        calibration = np.load(images) if images.exists() else None
        write(load(Path(folder, "run")), ExportOptions(**task["options"]), Path(task["path"]), calibration)
    except (RecipesError, OSError) as error:
        content = json.dumps({"code": getattr(error, "code", None), "message": str(error)})
        Path(folder, "error.json").write_text(content, encoding="utf-8")
