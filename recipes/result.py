"""The return value of `finetune`: the record of a run, with methods that save, export and report it."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from recipes.core.output import safe_output
from recipes.data.header_ops import MAX_PIXELS
from recipes.export.export import export as write_export
from recipes.export.options import ExportOptions
from recipes.reports.report import write as write_report
from recipes.runs import folder
from recipes.runs.prediction import Prediction
from recipes.runs.record import Record

__all__ = ["Prediction", "Result", "load"]


class Result(Record):
    """A finetuned classifier with its history. `print(result)` shows what was done and how accurate it is.

    See `Record` for its attributes.
    """

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the Result with the fields of a record."""
        return cls(**{field.name: getattr(record, field.name) for field in fields(record)})

    def save(self, directory: str | os.PathLike) -> None:
        """Write the run to a folder; `recipes.load(directory)` reads it again.

        Raises:
            OutputError: If the folder holds another run or something else, or cannot be written.
        """
        folder.save(self, directory)

    @safe_output()
    def export(
        self, directory: str | os.PathLike, *, format: str = "saved_model", crops: int | str = 1,
        top_k: int | None = None, abstain: float | None = None, quantize: str | None = None, proof: Any = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Path:  # fmt: skip
        """Write a SavedModel that takes encoded image bytes, or another format, and return its folder.

        The export is first compared with this Result on images. See
        `recipes.export.export.export` for `directory` and `proof`, and `ExportOptions` for the other arguments.
        """
        options = ExportOptions(format, crops, top_k, abstain, quantize, max_pixels)
        return write_export(self, directory, options, proof)

    @safe_output()
    def report(self, path: str | os.PathLike) -> None:
        """Write one self-contained HTML page with the decisions, their reasons and the results."""
        write_report(self, path)


@safe_output()
def load(directory: str | os.PathLike) -> Result:
    """Return the Result that `Result.save` or `finetune(output=...)` wrote.

    Raises:
        OutputError: If the folder holds no finished run, or a file of it is missing or damaged.
    """
    return Result.of(folder.load(directory))
