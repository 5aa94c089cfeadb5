"""Arguments and options that several commands share."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

import typer

import recipes
from recipes.core.files import check_writable
from recipes.data.images import Splits
from recipes.data.tables.reader import TABLE_SUFFIXES

Dataset = TypeVar("Dataset")

DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A folder of class folders (or of train/, val/, test/ above them), a CSV of path,label, tfds:NAME, "
        "a pack that `recipes pack` wrote, or digits (embedded).",
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="The folder that `recipes finetune --output` wrote.")]
BackboneOption = Annotated[
    str,
    typer.Option(
        help="auto, a keras.applications call such as 'MobileNetV2(alpha=0.35)', a .keras file, a run's folder, or "
        "glyphs."
    ),
]
WithinOption = Annotated[
    Path | None,
    typer.Option(help="For a CSV: the folder that its paths must not leave; default: the folder of the CSV."),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        help="How to read a CSV whose header is not clear: image=NAME, label=NAME, split=NAME, ignore=NAME, "
        "folder=PATH (the folder of relative paths), or encoding=NAME of its text. May be given several times.",
    ),
]
CropsOption = Annotated[
    str,
    typer.Option(help="Number of crops to average: 1 (centre), 5 (and corners), 10 (and mirror images), or auto."),
]
PICTURES = ".png, .jpg, .svg or .pdf"
PictureOption = Annotated[Path, typer.Option(help=f"The picture to write: {PICTURES}.")]
SeedOption = Annotated[int, typer.Option(help="Random seed; on a CPU, one seed gives the same result each time.")]


def read_csv(dataset: Dataset, within: Path | None, column: list[str] | None = None) -> Dataset | Splits:
    """Return a CSV as `recipes.from_csv` reads it with these options, and any other dataset unchanged."""
    options = [name for name, value in (("--within", within), ("--column", column)) if value]
    if not options or not isinstance(dataset, str | os.PathLike):
        return dataset
    if not str(dataset).lower().endswith(TABLE_SUFFIXES):
        typer.echo(f"{' and '.join(options)} only applies to CSV files; ignored for {dataset}.", err=True)
        return dataset
    ignored, chosen = _columns(column or [])
    return recipes.from_csv(dataset, within=within, ignore=ignored, **chosen)


def _columns(values: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the columns to ignore and the other keywords of `recipes.from_csv`, from the values of --column.

    Raises:
        DataError: For a value of another form, or a role that is given twice.
    """
    ignored: list[str] = []
    chosen: dict[str, str] = {}
    for value in values:
        role, _, name = value.partition("=")
        if role not in ("image", "label", "split", "ignore", "folder", "encoding") or not name:
            raise recipes.DataError(
                f"--column is {value!r}; expected image=NAME, label=NAME, split=NAME, ignore=NAME, folder=PATH or "
                "encoding=NAME",
                code="cli.column", field="--column", value=value,
            )  # fmt: skip
        if role == "ignore":
            ignored.append(name)
        elif role in chosen:
            raise recipes.DataError(
                f"--column {role}=… is given twice; expected it at most once", code="cli.column_twice",
                field="--column", value=value,
            )  # fmt: skip
        else:
            chosen[role] = name
    return ignored, chosen


def parse_crops(crops: str) -> int | str:
    return int(crops) if crops.isdecimal() else crops


def check_picture(path: Path) -> None:
    """Check that a picture can be written to `path`, before anything long begins.

    Raises:
        RecipeError: For a suffix that is not a picture's.
        OutputError: If the folder cannot be written.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf"):
        raise recipes.RecipeError(
            f"output is {str(path)!r}; expected a picture: {PICTURES}", code="cli.picture", field="output", path=path
        )
    check_writable(path.absolute().parent)
