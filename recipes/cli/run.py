"""The commands that use a finished run."""

import csv
from pathlib import Path
from typing import Annotated

import typer

import recipes
from recipes.cli.options import (
    ColumnOption,
    CropsOption,
    DatasetArgument,
    PictureOption,
    RunArgument,
    WithinOption,
    check_picture,
    crops_asked,
    listed,
)
from recipes.data.header_ops import MAX_PIXELS
from recipes.data.sources import unlabelled
from recipes.serving.limits import Limits


def evaluate(
    run: RunArgument,
    dataset: DatasetArgument,
    crops: CropsOption = "1",
    scales: Annotated[list[int] | None, typer.Option(help="Short sides in pixels, one --scales each.")] = None,
    mode: Annotated[str, typer.Option(help="auto, crops, or dense (whole images).")] = "auto",
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Accuracy of a run on other labelled images, with its 95 % interval."""
    found = recipes.load(run).evaluate(
        listed(dataset, within, column), crops=crops_asked(crops), scales=tuple(scales) if scales else None, mode=mode
    )  # fmt: skip
    print(found)


def diagnose(
    run: RunArgument,
    dataset: DatasetArgument,
    output: PictureOption = Path("diagnosis.png"),
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """The lecture's babysitting: what to look at in a network and its training, with verdicts in words."""
    check_picture(output)
    recipes.diagnose(recipes.load(run), listed(dataset, within, column)).figure().savefig(output)
    print(output)


def predict(
    run: RunArgument,
    images: Annotated[Path, typer.Argument(help="An image, or a folder of them.")],
    output: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("predictions.csv"),
    crops: CropsOption = "1",
    samples: Annotated[int, typer.Option(help="Average over so many draws of the training's noise.", min=0)] = 0,
    abstain: Annotated[float | None, typer.Option(help="No class name below this probability.")] = None,
):
    """Classify images into a CSV: path, class_name, probability, error, then each class's probability.

    With --samples also how far apart the draws are: spread (of the probability) and mutual_information (nats).
    """
    if not output.parent.is_dir():
        raise recipes.OutputError(f"{output} cannot be written: the folder {output.parent} does not exist")
    files, result = list(unlabelled(images).names), recipes.load(run)
    predictions = result.predict(files, crops=crops_asked(crops), samples=samples, abstain=abstain)
    errors = [p.error for p in predictions if p.error]
    with open(output, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        more = ["spread", "mutual_information"] if samples else []
        writer.writerow(["path", "class_name", "probability", "error", *result.class_names, *more])
        for said in predictions:
            numbers = (said.probability, *said.probabilities, *(getattr(said, name) for name in more))
            first, *rest = ("" if said.error else f"{number:.6f}" for number in numbers)
            writer.writerow([said.path, said.class_name or "", first, said.error, *rest])
    print(f"{len(files) - len(errors)} images classified, {len(errors)} unreadable: {output}")
    if len(errors) == len(files):
        raise recipes.DataError(f"none of the {len(files)} images in {images} can be decoded: {errors[0]}")


def export(
    run: RunArgument,
    directory: Annotated[Path, typer.Argument(help="serving (its next free version is made) or serving/7.")],
    format: Annotated[str, typer.Option(help="saved_model, keras, onnx or litert.")] = "saved_model",
    crops: Annotated[str, typer.Option(help="1, 5, 10, or auto: what gained on the validation images.")] = "1",
    top_k: Annotated[int | None, typer.Option(help="How many classes are named; default: up to 5.", min=1)] = None,
    abstain: Annotated[float | None, typer.Option(help="Name no class below this probability.")] = None,
    quantize: Annotated[str | None, typer.Option(help="float16 or int8 weights.")] = None,
    proof: Annotated[
        str | None, typer.Option(help="Images to prove it with, in place of the validation images.")
    ] = None,
    max_pixels: Annotated[int, typer.Option(help="Refuse larger images by their header.", min=1)] = MAX_PIXELS,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Write the classifier for others to run, after a fresh process has answered with it as the run does."""
    from recipes.export.export import check_backend

    proof = listed(proof, within, column)
    given = dict(top_k=top_k, abstain=abstain, quantize=quantize, max_pixels=max_pixels, proof=proof)
    check_backend(format)
    path = recipes.load(run).export(directory, format=format, crops=crops_asked(crops), **given)
    print(f"{format}: {path}")
    if format == "saved_model":
        print(f"next:   recipes serve {path}    saved_model_cli show --dir {path} --tag_set serve --all")


def serve(
    directory: Annotated[
        Path, typer.Argument(help="What `recipes export` wrote: serving (newest version) or serving/7.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8501,
    name: Annotated[str | None, typer.Option(help="Of the model in the routes; default: the folder's.")] = None,
    batch: Annotated[int, typer.Option(help="Images at once, at most.", min=1)] = Limits.batch,
    workers: Annotated[
        int, typer.Option(help="Batches at once.", min=1, show_default="one a core, at most 4")
    ] = Limits.workers,
    queue: Annotated[int, typer.Option(help="Images that wait, at most; 503 beyond.", min=1)] = Limits.queue,
    body: Annotated[int, typer.Option(help="MiB of a request, at most; 413 beyond.", min=1)] = Limits.body // 2**20,
    idle: Annotated[
        float, typer.Option(help="Seconds after which a silent connection is closed.", min=0.1)
    ] = Limits.idle,
):
    """Serve an exported SavedModel over HTTP: TensorFlow Serving's REST routes, and a page to try photos on."""
    from recipes.serving.app import serve

    size = body * 2**20
    limits = Limits(batch, workers, queue, size, max(Limits.bodies, size), idle)
    serve(directory, host=host, port=port, name=name, limits=limits)


def report(
    run: RunArgument,
    path: Annotated[
        Path | None, typer.Argument(help="The HTML page to write.", show_default="report.html in the run")
    ] = None,
):
    """Write the page about a run again."""
    path = path or run / "report.html"
    recipes.load(run).report(path)
    print(path)
