"""The commands that inspect images, and prepare them for training."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import augment
import recipes
from augment import Policy
from recipes.auditing.facts import inspect_image
from recipes.cli.options import (
    ColumnOption,
    DatasetArgument,
    PictureOption,
    SeedOption,
    WithinOption,
    check_picture,
    read_csv,
)
from recipes.data.images import ImageData
from recipes.data.sources import load
from recipes.training.input.server import PORT

_TRIED = 16  # images, from which a preview takes those that can be decoded
POLICIES = {
    "none": Policy.none,
    "light": Policy.light,
    "resnet": Policy.resnet,
    "strong": Policy.strong,
    "rand": Policy.rand_augment,
}


def audit(
    dataset: DatasetArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Treat findings as an error: exit code 2.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every finding to this file, one row per file.")
    ] = None,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Check every image once: report damaged and unusual images, duplicates, and how each is handled."""
    found = recipes.audit(read_csv(dataset, within, column))
    if csv is not None:
        found.to_csv(csv)
    if strict:
        found.check_clean()
    print(found)


def preview(
    dataset: DatasetArgument,
    output: PictureOption = Path("preview.png"),
    policy: Annotated[str, typer.Option(help="none, light, resnet, or strong.")] = "light",
    size: Annotated[int, typer.Option(help="Side of the crops, pixels.", min=8)] = 224,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Draw some images and their augmentations by a policy."""
    if policy not in POLICIES:
        raise recipes.RecipeError(
            f"policy is {policy!r}; expected one of {list(POLICIES)}", code="cli.policy", field="policy", value=policy
        )
    check_picture(output)
    splits = load(read_csv(dataset, within, column))
    for note in splits.notes:
        print(note)
    spread = _decodable(splits.train, 4)
    augment.preview(spread.source(), POLICIES[policy](size), seed=seed).savefig(output)
    print(output)


def _decodable(data: ImageData, most: int) -> ImageData:
    """Return up to `most` images spread over a dataset; print which of those it skips, and why.

    Raises: DataError where none of the images that are tried can be decoded.
    """
    tried = np.unique(np.linspace(0, len(data) - 1, min(_TRIED, len(data))).astype(int))
    order = np.argsort(np.arange(len(tried)) % -(-len(tried) // most), kind="stable")  # spread ones before the others
    chosen, error = [], ""
    for index in tried[order]:
        if error := inspect_image(data, index).error:
            print(f"skipped {data.names[index]}: {error}")
        else:
            chosen.append(index)
        if len(chosen) == most:
            break
    if not chosen:
        raise recipes.DataError(
            f"none of {len(tried)} images can be decoded; the last error: {error}. `recipes audit` reports every file",
            code="cli.undecodable", images=len(tried), reason=error,
        )  # fmt: skip
    return data.subset(sorted(chosen))


def pack(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the pack, which is a dataset like the original.")],
    shards: Annotated[
        int | None, typer.Option(help="Number of files for the training images; default: files of 256 MiB.", min=1)
    ] = None,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Write a dataset into a few large files with checksums. Run it again to resume it."""
    print(f"{recipes.pack(read_csv(dataset, within, column), out, shards=shards)}")
    print(f"pack:   {out}\nnext:   recipes finetune {out}")


def input_worker(
    host: Annotated[
        str | None, typer.Option(help="Host name at which trainings reach this machine.", show_default="its own name")
    ] = None,
    port: Annotated[int, typer.Option(help="Port, with the next one; 0: two free ports.", min=0, max=65534)] = PORT,
) -> None:
    """Read and augment images for trainings on other machines (finetune --input-workers) in a trusted network."""
    from recipes.training.input.server import serve

    serve(host, port)
