"""Show the lecture's 2 × 2 table with a dataset marked in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from recipes.planning.evidence import ProbeEvidence, similar
from recipes.planning.plan import TRAINABLE
from recipes.planning.summary import Summary

COLUMNS = ("similar to ImageNet", "different from ImageNet")


@dataclass(frozen=True)
class LectureTable:
    """The lecture's advice by amount of data and similarity to ImageNet, and the cell of a dataset.

    Attributes:
        a_lot: Whether the dataset counts as a lot of data.
        similar: Whether it is similar to ImageNet.
        trainable: Whether a small, similar dataset still has enough images for finetuning.
    """

    a_lot: bool
    similar: bool
    trainable: bool

    @classmethod
    def of(cls, summary: Summary, probe: ProbeEvidence) -> "LectureTable":
        """Return the table with the dataset of `summary` marked."""
        return cls(summary.a_lot, similar(probe), summary.images >= TRAINABLE)

    @classmethod
    def saved(cls, saved: Mapping[str, bool] | str | None) -> "LectureTable | None":
        """Return the table from the output of `asdict`, or from the text that an earlier version saved."""
        if not isinstance(saved, str):
            return cls(**saved) if saved else None
        tables = (cls(*facts) for facts in product((False, True), repeat=3))
        return next((table for table in tables if str(table) == saved), None)

    @property
    def rows(self) -> list[tuple[str, list[tuple[str, bool]]]]:
        """Amount of data of each row, and for each of `COLUMNS` the advice and whether the dataset is marked."""
        then = ", then finetune a few stages" if self.trainable else ""
        top, several = f"linear classifier on the top features{then}", "linear classifier on several stages"
        advice = {
            "little data": (top, f"{several}, then finetune all"),
            "a lot of data": ("finetune a few stages", "finetune all stages"),
        }
        at = ("a lot of data" if self.a_lot else "little data", 0 if self.similar else 1)
        return [
            (title, [(text, (title, column) == at) for column, text in enumerate(texts)])
            for title, texts in advice.items()
        ]

    def __str__(self) -> str:
        cells = [(title, *(("▶ " if marked else "  ") + text for text, marked in row)) for title, row in self.rows]
        width = max(len(text) for row in cells for text in row[1:]) + 2
        head = ("", *COLUMNS)
        return "\n".join(f"{title:14}{left:{width}}{right}" for title, left, right in (head, *cells))
