"""Arguments and options that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

import recipes
from recipes.core.files import check_writable
from recipes.data.tables.reader import TABLE_SUFFIXES

DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A folder of class folders (or of train/, val/, test/ above them), a CSV of path,label, tfds:NAME, "
        "what `recipes pack` wrote, or digits (embedded).",
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
    typer.Option(help="Of a CSV: the folder that its paths may not leave; default: the one it lies in."),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        help="How to read a CSV where it does not say so itself: image=NAME, label=NAME, split=NAME, ignore=NAME, "
        "folder=PATH, where its paths start, or encoding=NAME of its text. May be given several times.",
    ),
]
CropsOption = Annotated[
    str, typer.Option(help="Predictions averaged over: 1 (centre), 5 (and corners), 10 (and mirror images), or auto.")
]
PICTURES = ".png, .jpg, .svg or .pdf"
PictureOption = Annotated[Path, typer.Option(help=f"The picture to write: {PICTURES}.")]
SeedOption = Annotated[int, typer.Option(help="Of all that is drawn: with one seed two CPU runs give the same.")]


def listed(dataset, within: Path | None, column: list[str] | None = None):
    """Return a CSV as `recipes.from_csv` reads it with these options, anything else as it is."""
    given = [name for name, value in (("--within", within), ("--column", column)) if value]
    if not given or not isinstance(dataset, str | os.PathLike):
        return dataset
    if not str(dataset).lower().endswith(TABLE_SUFFIXES):
        typer.echo(f"{' and '.join(given)} only applies to CSV files; ignored for {dataset}.", err=True)
        return dataset
    return recipes.from_csv(dataset, within=within, **_columns(column or []))


def _columns(given: list[str]) -> dict:
    options = {"ignore": []}
    for each in given:
        role, _, name = each.partition("=")
        if role not in ("image", "label", "split", "ignore", "folder", "encoding") or not name:
            raise recipes.DataError(
                f"--column is {each!r}; expected image=NAME, label=NAME, split=NAME, ignore=NAME, folder=PATH or "
                "encoding=NAME"
            )
        if role != "ignore" and role in options:
            raise recipes.DataError(f"--column {role}=… is given twice; a table has one of it")
        options[role] = [*options["ignore"], name] if role == "ignore" else name
    return options


def crops_asked(crops: str) -> int | str:
    return int(crops) if crops.isdecimal() else crops


def check_picture(path: Path) -> None:
    """Before anything long begins."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf"):
        raise recipes.RecipeError(f"output is {str(path)!r}; expected a picture: {PICTURES}")
    check_writable(path.absolute().parent)
