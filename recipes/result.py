"""Define the return value of `finetune`: the record of a run, with methods that save, export and report it."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from recipes.core.output import safe_output
from recipes.data.header_ops import MAX_PIXELS
from recipes.export.export import export as write_export
from recipes.export.options import ExportOptions
from recipes.reports.report import write as write_report
from recipes.runs import folder, wording
from recipes.runs.prediction import Prediction
from recipes.runs.record import Record

__all__ = ["Prediction", "Result", "load"]


class Result(Record):
    """Hold a finetuned classifier with its history.

    `print(result)` shows what was done and the accuracy. `result.summary()` is a short version, and a notebook shows a
    card. See `Record` for its attributes.
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

        Before the export is returned, its predictions on images are compared with this Result. See
        `recipes.export.export.export` for `directory` and `proof`, and `ExportOptions` for the other arguments.
        """
        options = ExportOptions(format, crops, top_k, abstain, quantize, max_pixels)
        return write_export(self, directory, options, proof)

    @safe_output()
    def report(self, path: str | os.PathLike) -> None:
        """Write one self-contained HTML page with the decisions, their reasons and the results."""
        write_report(self, path)

    @property
    def accuracy(self) -> float | None:
        """Return the accuracy to quote, from 0 to 1; None if no images were held out.

        This is the accuracy on the test images if the dataset has a test split, else on the validation images. If the
        validation images also selected the best of several candidates, their accuracy is slightly optimistic. Nested
        cross-validation of that selection, `selection.accuracy`, then replaces it. `headline` has the interval.
        """
        return self.headline and self.headline.accuracy

    def summary(self, saved_in: str | os.PathLike | None = None) -> str:
        """Return the result in at most nine short lines.

        The first line is the accuracy with its 95 % interval: "92.2 % (86.8 to 95.5) on 153 held-out images". The other
        lines are the network, the recipe and its main reason, the gain of the training, excluded files, doubtful
        labels, the time, and where the details are. `print(result)` shows everything.

        Args:
            saved_in: The folder of the run, which the text names.
        """
        return wording.summary(self, saved_in)

    def __str__(self) -> str:
        return wording.details(self)

    def _repr_html_(self) -> str:
        """Return the card that a notebook shows."""
        return wording.result_card(self)


@safe_output()
def load(directory: str | os.PathLike) -> Result:
    """Return the Result that `Result.save` or `finetune(output=...)` wrote.

    Raises:
        OutputError: If the folder holds no finished run, or a file of the run is missing or damaged.
    """
    return Result.of(folder.load(directory))
