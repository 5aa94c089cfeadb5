"""Define the commands that inspect images and prepare them for training."""

from collections import Counter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import recipes
from recipes.cli.command import Answer
from recipes.cli.options import (
    ColumnOption,
    DatasetArgument,
    PictureOption,
    SeedOption,
    WithinOption,
    check_picture,
    read_csv,
)
from recipes.core.addresses import INPUT_PORT
from recipes.errors import DataError

if TYPE_CHECKING:
    from recipes.data.images import ImageData

_TRIED = 16  # number of images that a preview tries to decode


def audit(
    dataset: DatasetArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Treat findings as an error: exit code 2.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all findings to this CSV file, one row per image or class.")
    ] = None,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Check every image once: report damaged and unusual images, duplicates, and how each is handled."""
    found = recipes.audit(read_csv(dataset, within, column))
    if csv is not None:
        found.to_csv(csv)
    if strict:
        found.check_clean()
    images = sum(map(len, found.fingerprints.values()))
    kinds = Counter(finding.kind for finding in found.findings)
    text = f"{len(kinds)} kinds of findings, {len(found.excluded):,} files excluded" if kinds else "nothing odd"
    findings = [
        {"kind": each.kind, "files": each.files, "action": each.action, "excluded": each.excluded}
        for each in found.findings
    ]
    return Answer(
        f"{images:,} images: {text}",
        str(found) if found.findings or found.layout else "",
        next=(f"recipes finetune {quote(dataset)}",),
        data={"images": images, "findings": findings, "excluded": sorted(found.excluded)},
    )


def preview(
    dataset: DatasetArgument,
    output: PictureOption = Path("preview.png"),
    policy: Annotated[
        Literal["none", "light", "resnet", "strong", "rand"],
        typer.Option(help="How strongly to augment; rand: RandAugment."),
    ] = "light",
    size: Annotated[int, typer.Option(help="Side of the crops, pixels.", min=8)] = 224,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Draw some images and their augmentation by a policy."""
    from recipes.data.sources import load

    check_picture(output)
    splits = load(read_csv(dataset, within, column))
    spread = _decodable(splits.train, 4)
    name = "rand_augment" if policy == "rand" else policy
    chosen = getattr(recipes.augment.Policy, name)(size)
    recipes.augment.preview(spread.source(), chosen, seed=seed).savefig(output)
    return Answer(str(output), "\n".join(map(str, splits.notes)), data={"output": output})


def _decodable(data: "ImageData", most: int) -> "ImageData":
    """Return up to `most` decodable images spread over a dataset, and print the skipped images with the cause.

    Raises:
        DataError: If none of the images can be decoded.
    """
    import numpy as np

    from recipes.auditing.facts import inspect_image

    tried = np.unique(np.linspace(0, len(data) - 1, min(_TRIED, len(data))).astype(int))
    # tries spread images before the others
    order = np.argsort(np.arange(len(tried)) % -(-len(tried) // most), kind="stable")
    chosen, error = [], ""
    for index in tried[order]:
        if error := inspect_image(data, index).error:
            typer.echo(f"skipped {data.names[index]}: {error}", err=True)
        else:
            chosen.append(index)
        if len(chosen) == most:
            break
    if not chosen:
        raise DataError(
            f"none of {len(tried)} images can be decoded (last error: {error}); run `recipes audit` to check every "
            f"file",
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
) -> Answer:
    """Write a dataset into a few large files with checksums. Run it again to resume it."""
    found = recipes.pack(read_csv(dataset, within, column), out, shards=shards)
    return Answer(f"packed in {out}/", str(found), next=(f"recipes finetune {quote(str(out))}",), data={"output": out})


def input_worker(
    host: Annotated[
        str | None, typer.Option(help="Host name at which trainings reach this machine.", show_default="its own name")
    ] = None,
    port: Annotated[
        int, typer.Option(help="First of two consecutive ports; 0: two free ports.", min=0, max=65534)
    ] = INPUT_PORT,
) -> None:
    """Read and augment images for trainings on other machines of a trusted network (finetune --input-workers)."""
    from recipes.training.input.server import serve

    serve(host, port)
