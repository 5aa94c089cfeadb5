"""Arguments and options that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

import recipes
from recipes.run_folder import check_writable

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
    typer.Option(help="auto, a keras.applications call such as 'MobileNetV2(alpha=0.35)', a .keras file, or glyphs."),
]
WithinOption = Annotated[
    Path | None,
    typer.Option(help="Of a CSV: the folder that its paths may not leave; default: the one it lies in."),
]
CropsOption = Annotated[
    str, typer.Option(help="Predictions averaged over: 1 (centre), 5 (and corners), 10 (and mirror images), or auto.")
]
PICTURES = ".png, .jpg, .svg or .pdf"
PictureOption = Annotated[Path, typer.Option(help=f"The picture to write: {PICTURES}.")]
SeedOption = Annotated[int, typer.Option(help="Of all that is drawn: with one seed two CPU runs give the same.")]


def listed(dataset, within: Path | None):
    """A CSV with the folder that its paths may not leave; anything else as it is."""
    if within is None or not isinstance(dataset, str | os.PathLike):
        return dataset
    if not str(dataset).lower().endswith(".csv"):
        typer.echo(f"--within is of no account for {dataset}, which is no CSV", err=True)
        return dataset
    return recipes.from_csv(dataset, within=within)


def crops_asked(crops: str) -> int | str:
    return int(crops) if crops.isdecimal() else crops


def check_picture(path: Path) -> None:
    """Before anything long begins."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf"):
        raise recipes.RecipeError(f"output is {str(path)!r}; expected a picture: {PICTURES}")
    check_writable(path.absolute().parent)
