"""The process that `other_process` starts: it loads a run and writes one export of it on Keras's TensorFlow backend."""

import json
from pathlib import Path

import numpy as np

from recipes.errors import RecipesError
from recipes.export.export import write
from recipes.export.saved_model import Options
from recipes.runs.folder import load


def main(folder: str) -> None:
    """Do the task that `folder` describes; write a RecipesError or OSError to error.json there."""
    task = json.loads(Path(folder, "task.json").read_text(encoding="utf-8"))
    options = Options(**task["options"])
    try:
        run = load(Path(folder, "run"))
        write(run, task["kind"], Path(task["path"]), options, lambda: np.load(Path(folder, "calibration.npy")))
    except (RecipesError, OSError) as error:
        content = json.dumps([isinstance(error, RecipesError), str(error)])
        Path(folder, "error.json").write_text(content, encoding="utf-8")
