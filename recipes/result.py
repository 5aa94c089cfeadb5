"""What `finetune` returns: the record of a run, with the ways to save, export and report it."""

from dataclasses import fields
from pathlib import Path
from typing import Self

from recipes.core.output import safe_output
from recipes.data.header_ops import MAX_PIXELS
from recipes.export.export import export as write_export
from recipes.reports.report import write as write_report
from recipes.runs import folder
from recipes.runs.record import Prediction, Record

__all__ = ["Prediction", "Result", "load"]


class Result(Record):
    """A finetuned classifier with its history. `print(result)` tells what was done and what came out.

    See `Record` for its fields.
    """

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the Result with the fields of a record."""
        return cls(**{field.name: getattr(record, field.name) for field in fields(record)})

    def save(self, directory) -> None:
        """Write the run to a folder; `recipes.load(directory)` brings it back.

        Raises: OutputError when the folder holds another run or something else.
        """
        folder.save(self, directory)

    @safe_output()
    def export(
        self, directory, *, format: str = "saved_model", crops=1, top_k: int | None = None,
        abstain: float | None = None, quantize: str | None = None, proof=None, max_pixels: int = MAX_PIXELS,
    ) -> Path:  # fmt: skip
        """Write a SavedModel that takes encoded image bytes, or another format, after proving that it answers the same:
        see `recipes.export.export.export`."""
        return write_export(
            self, directory, format=format, crops=crops, top_k=top_k, abstain=abstain, quantize=quantize, proof=proof,
            max_pixels=max_pixels,
        )  # fmt: skip

    @safe_output()
    def report(self, path) -> None:
        """Write one self-contained HTML page that tells what was done, why, and what came out."""
        write_report(self, path)


@safe_output()
def load(directory: str | Path) -> Result:
    """Return the Result that `Result.save` or `finetune(output=...)` wrote.

    Raises:
        OutputError: If the folder holds no finished run, or a file of it is missing or damaged.
    """
    return Result.of(folder.load(directory))
