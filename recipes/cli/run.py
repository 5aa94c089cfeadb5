"""Define the commands that use a finished run."""

import csv
import os
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

import recipes
from recipes.cli.answers import evaluation_data, table
from recipes.cli.command import Answer
from recipes.cli.options import (
    ColumnOption,
    CropsOption,
    DatasetArgument,
    OutputFlags,
    PictureOption,
    RunArgument,
    WithinOption,
    check_dataset,
    check_picture,
    parse_crops,
    read_csv,
)
from recipes.core.text import percent
from recipes.errors import DataError, OutputError
from recipes.serving.limits import Limits

Format = Literal["saved_model", "keras", "onnx", "litert"]


def evaluate(
    run: RunArgument,
    dataset: DatasetArgument,
    crops: CropsOption = "1",
    scales: Annotated[
        list[int] | None, typer.Option(help="Short side of the images in pixels; may be given several times.")
    ] = None,
    mode: Annotated[
        Literal["auto", "crops", "dense"],
        typer.Option(help="Whether to use crops, or whole images in one pass (dense)."),
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option(*OutputFlags, help="Write the accuracy of every class to this CSV.")
    ] = None,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Measure the accuracy of a run on other labelled images, with its 95 % interval."""
    evaluation = recipes.load(run).evaluate(
        read_csv(dataset, within, column), crops=parse_crops(crops), scales=tuple(scales) if scales else None, mode=mode
    )  # fmt: skip
    if output is not None:
        evaluation.to_csv(output)
    saved = "" if output is None else f", saved in {output}"
    return Answer(
        f"{percent(evaluation.accuracy, evaluation.interval)} on {evaluation.n:,} images{saved}",
        f"mean over the classes {percent(evaluation.macro_accuracy)}; -v prints every class, --output writes a CSV",
        f"{evaluation}\n{table(evaluation.table())}",
        data=(evaluation_data(evaluation) or {}) | {"per_class": [vars(each) for each in evaluation.per_class]},
    )


def compare(
    first: RunArgument,
    second: RunArgument,
    dataset: Annotated[
        str | None,
        typer.Argument(
            callback=check_dataset,
            help="Labelled images that no run saw. The default are the images that both runs held out; runs with the "
            "same data and --seed hold out the same.",
        ),
    ] = None,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Compare two runs image by image on the same photos: the difference, with its 95 % interval."""
    found = recipes.compare(first, second, read_csv(dataset, within, column))
    names = ("gain", "interval", "nats", "nats_interval", "verdict")
    accuracies = {"first": evaluation_data(found.first), "second": evaluation_data(found.second)}
    data = accuracies | {name: getattr(found.gain, name) for name in names}
    return Answer(found.verdict, "\n".join(str(found).splitlines()[1:]), data=data)


def diagnose(
    run: RunArgument,
    dataset: DatasetArgument,
    output: PictureOption = Path("diagnosis.png"),
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Run the lecture's checks of a network and its training, and report the verdicts."""
    check_picture(output)
    diagnosis = recipes.diagnose(recipes.load(run), read_csv(dataset, within, column))
    diagnosis.figure().savefig(output)
    failed = [verdict.check for verdict in diagnosis.verdicts if verdict.well is False]
    verdicts = [
        {"check": each.check, "well": each.well, "measured": each.measured, "advice": each.advice}
        for each in diagnosis.verdicts
    ]
    headline = f"{len(failed)} of {len(verdicts)} checks failed: {', '.join(failed)}" if failed else "no check failed"
    return Answer(f"{headline}; drawn in {output}", str(diagnosis), data={"verdicts": verdicts, "output": output})


def predict(
    run: RunArgument,
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.", exists=True)],
    output: Annotated[Path, typer.Option(*OutputFlags, help="The CSV to write.")] = Path("predictions.csv"),
    crops: CropsOption = "1",
    samples: Annotated[int, typer.Option(help="Number of draws of the training's noise to average.", min=0)] = 0,
    abstain: Annotated[
        float | None, typer.Option(help="Leave out the class name below this probability.", min=0, max=1)
    ] = None,
) -> Answer:
    """Classify images into a CSV: path, class_name, probability, error, then each class's probability.

    With --samples, two further columns report how much the draws disagree: spread (of the probability) and
    mutual_information (nats).
    """
    from recipes.data.sources import unlabelled

    if not output.parent.is_dir():
        raise OutputError(
            f"{output} cannot be written: the folder {output.parent} does not exist; create it, or choose another "
            "--output",
            code="output.no_folder", path=output,
        )  # fmt: skip
    files, result = list(unlabelled(images).names), recipes.load(run)
    predictions = result.predict(files, crops=parse_crops(crops), samples=samples, abstain=abstain)
    errors = [p.error for p in predictions if p.error]
    with open(output, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        more = ["spread", "mutual_information"] if samples else []
        writer.writerow(["path", "class_name", "probability", "error", *result.class_names, *more])
        for each in predictions:
            numbers = (each.probability, *each.probabilities, *(getattr(each, name) for name in more))
            first, *rest = ("" if each.error else f"{number:.6f}" for number in numbers)
            writer.writerow([each.path, each.class_name or "", first, each.error, *rest])
    if len(errors) == len(files):
        raise DataError(
            f"none of the {len(files)} images in {images} can be decoded ({errors[0]}); give undamaged images in a "
            f"supported format", code="data.undecodable",
            path=images,
        )  # fmt: skip
    shown = [f"{p.path}: {p.error}" for p in predictions if p.error][:5]
    shown += [f"{p.path}: {p.class_name} ({percent(p.probability)})" for p in predictions if not p.error][:5]
    if len(shown) < len(predictions):
        shown.append(f"… {len(predictions) - len(shown):,} more in {output}")
    rows = [
        {"path": p.path, "class_name": p.class_name, "probability": p.probability, "error": p.error or None,
         "probabilities": p.probabilities}
        for p in predictions
    ]  # fmt: skip
    return Answer(
        f"{len(files) - len(errors):,} images classified, {len(errors):,} unreadable, saved in {output}",
        "\n".join(shown),
        data={"output": output, "class_names": result.class_names, "predictions": rows},
    )


def export(
    run: RunArgument,
    directory: Annotated[
        Path, typer.Argument(help="The folder to create: serving (for its next free version) or serving/7.")
    ],
    format: Annotated[Format, typer.Option(help="Format of the export.")] = "saved_model",
    crops: Annotated[
        str, typer.Option(help="Number of crops: 1, 5, 10, or auto (the set that gained in validation).")
    ] = "1",
    top_k: Annotated[int | None, typer.Option(help="Number of classes to name; default: up to 5.", min=1)] = None,
    abstain: Annotated[
        float | None, typer.Option(help="Leave out the class name below this probability.", min=0, max=1)
    ] = None,
    quantize: Annotated[Literal["float16", "int8"] | None, typer.Option(help="Type of the weights.")] = None,
    proof: Annotated[
        str | None,
        typer.Option(
            callback=check_dataset, help="Images to verify the export with, instead of the validation images."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of pixels; larger images are rejected by their header.",
            min=1,
            show_default="50 million",
        ),
    ] = None,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Write the classifier for deployment, after verifying its predictions in a new process."""
    from recipes.export.options import check_backend

    images = read_csv(proof, within, column)
    check_backend(format)
    limit = {} if max_pixels is None else {"max_pixels": max_pixels}
    path = recipes.load(run).export(
        directory, format=format, crops=parse_crops(crops), top_k=top_k, abstain=abstain, quantize=quantize,
        proof=images, **limit,
    )  # fmt: skip
    folder = os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    where = quote(folder)
    steps = (f"recipes serve {where}", f"saved_model_cli show --dir {where} --tag_set serve --all")
    return Answer(f"{format} written to {folder}", next=steps if format == "saved_model" else (), data={"path": path})


def serve(
    directory: Annotated[
        Path,
        typer.Argument(
            exists=True, help="A folder that `recipes export` wrote: serving (newest version) or serving/7."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 accepts connections from other machines.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free port.", min=0, max=65535)] = 8501,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in the routes; default: the folder's name.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Maximum number of images per batch.", min=1)] = Limits.batch,
    workers: Annotated[
        int, typer.Option(help="Number of batches computed at once.", min=1, show_default="one per core, at most 4")
    ] = Limits.workers,
    queue: Annotated[
        int, typer.Option(help="Maximum number of waiting images; beyond it, the answer is 503.", min=1)
    ] = Limits.queue,
    body: Annotated[
        int, typer.Option(help="Maximum MiB of a request; beyond it, the answer is 413.", min=1)
    ] = Limits.body // 2**20,
    idle: Annotated[
        float, typer.Option(help="Seconds after which a silent connection is closed.", min=0.1)
    ] = Limits.idle,
) -> None:
    """Serve an exported SavedModel over HTTP, with TensorFlow Serving's REST routes and a page for trying photos."""
    from recipes.serving.app import serve

    size = body * 2**20
    limits = Limits(batch, workers, queue, size, max(Limits.bodies, size), idle)
    serve(directory, host=host, port=port, name=name, limits=limits)


def report(
    run: RunArgument,
    path: Annotated[
        Path | None, typer.Argument(help="The HTML page to write.", show_default="report.html in the run")
    ] = None,
) -> Answer:
    """Write the report of a run again."""
    path = path or run / "report.html"
    recipes.load(run).report(path)
    return Answer(str(path), data={"report": path})
