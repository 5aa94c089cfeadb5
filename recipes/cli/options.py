"""Define arguments and options that several commands share, and checks that need no TensorFlow."""

import ast
import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

import recipes
from recipes.core.files import check_writable
from recipes.data.tables.names import TABLE_SUFFIXES
from recipes.errors import DataError, RecipeError
from recipes.planning import NAMES

if TYPE_CHECKING:
    from recipes.data.images import Splits

Dataset = TypeVar("Dataset")
RECIPES = ("auto", *NAMES)
PICTURES = ".png, .jpg, .svg or .pdf"


def check_dataset(dataset: str | None) -> str | None:
    """Return the dataset, or raise BadParameter for a path that does not exist."""
    if dataset is None or dataset == "digits" or dataset.startswith("tfds:") or _is_fraction(dataset):
        return dataset
    if not Path(dataset).expanduser().exists():
        raise typer.BadParameter(f"{dataset} does not exist (in {Path(dataset).absolute().parent}); check the spelling")
    return dataset


def check_recipe(recipe: str) -> str:
    """Return --recipe, or raise BadParameter for a value that is neither a name nor a path."""
    if recipe in RECIPES or recipe.endswith(".json") or Path(recipe).expanduser().exists():
        return recipe  # the command reads the file and reports its errors
    close = get_close_matches(recipe, RECIPES, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise typer.BadParameter(
        f"{recipe!r} is neither the name of a recipe nor an existing file.{hint} Expected one of "
        f"{', '.join(RECIPES)}, the folder "
        "of a run or a search, or a recipe.json"
    )


def _is_fraction(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


DatasetArgument = Annotated[
    str,
    typer.Argument(
        callback=check_dataset,
        help="A folder of class folders (or of train/, val/, test/ above them), a CSV of path,label, tfds:NAME, "
        "a pack that `recipes pack` wrote, or digits (embedded).",
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(help="The folder that `recipes finetune --output` wrote.", exists=True, file_okay=False)
]
BackboneOption = Annotated[
    str,
    typer.Option(
        help="auto, a keras.applications call such as 'MobileNetV2(alpha=0.35)', a .keras file, a run's folder, or "
        "glyphs."
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        callback=check_recipe,
        autocompletion=lambda: list(RECIPES),
        help="auto (measured), probe, few, all, scratch, the folder of a run or a search, or a recipe.json.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change a field of the recipe, such as learning_rate=1e-4 or dropout=0.2. May be given several "
        "times.",
    ),
]  # fmt: skip
WithinOption = Annotated[
    Path | None,
    typer.Option(help="For a CSV: the folder that its paths must not leave; default: the folder of the CSV."),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        help="How to read a CSV with an unclear header: image=NAME, label=NAME, split=NAME, ignore=NAME, "
        "folder=PATH (the folder of relative paths), or encoding=NAME of its text. May be given several times.",
    ),
]
CropsOption = Annotated[
    str,
    typer.Option(
        autocompletion=lambda: ["1", "5", "10", "auto"],
        help="Number of crops to average: 1 (centre), 5 (and corners), 10 (and mirror images), or auto.",
    ),
]
OutputFlags = ("--output", "-o")
PictureOption = Annotated[Path, typer.Option(*OutputFlags, help=f"The picture to write: {PICTURES}.")]
SeedOption = Annotated[int, typer.Option(help="Random seed; on a CPU, the same seed gives the same result.")]


def read_csv(dataset: Dataset, within: Path | None, column: list[str] | None = None) -> "Dataset | Splits":
    """Read a CSV with `recipes.from_csv` and these options; return any other dataset unchanged."""
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
        DataError: If a value is malformed or a role is given twice.
    """
    ignored: list[str] = []
    chosen: dict[str, str] = {}
    for value in values:
        role, _, name = value.partition("=")
        if role not in ("image", "label", "split", "ignore", "folder", "encoding") or not name:
            raise DataError(
                f"--column is {value!r}; expected image=NAME, label=NAME, split=NAME, ignore=NAME, folder=PATH or "
                "encoding=NAME",
                code="cli.column", field="--column", value=value,
            )  # fmt: skip
        if role == "ignore":
            ignored.append(name)
        elif role in chosen:
            raise DataError(
                f"--column {role}=… is given twice; give it at most once", code="cli.column_twice",
                field="--column", value=value,
            )  # fmt: skip
        else:
            chosen[role] = name
    return ignored, chosen


def parse_changes(values: list[str] | None, epochs: int | None = None) -> dict[str, Any]:
    """Return the fields of the recipe that --set and --epochs change.

    Raises:
        RecipeError: If a value is malformed.
    """
    changes: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    for value in values or ():
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            raise RecipeError(
                f"--set is {value!r}; expected NAME=VALUE, such as learning_rate=1e-4", code="cli.set", field="--set",
                value=value,
            )  # fmt: skip
        try:
            changes[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            changes[name] = text
    return changes


def parse_crops(crops: str) -> int | str:
    return int(crops) if crops.isdecimal() else crops


def parse_fraction(validation: str | None) -> str | float | None:
    """Return --validation as a number if it is one."""
    return float(validation) if validation is not None and _is_fraction(validation) else validation


def check_picture(path: Path) -> None:
    """Check that a picture can be written to `path`, before a long computation begins.

    Raises:
        RecipeError: If the suffix is not that of a picture format.
        OutputError: If the folder cannot be written.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf"):
        raise RecipeError(
            f"--output is {str(path)!r}; expected the name of a picture: {PICTURES}",
            code="cli.picture",
            field="output",
            path=path,
        )
    check_writable(path.absolute().parent)
