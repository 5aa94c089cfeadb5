"""The command line: each command is one call of the Python interface."""

import csv
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

import augment
import recipes
from augment import Policy
from recipes.audit import look, printable
from recipes.graph_header import MAX_PIXELS
from recipes.input_worker import PORT
from recipes.peers import leads
from recipes.recipe_file import load_recipe
from recipes.run_folder import check_writable
from recipes.run_state import saved_in_the_end
from recipes.serve_limits import Limits
from recipes.sources import load, unlabelled

app = typer.Typer(
    help="Finetune an ImageNet-pretrained network on your own photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

POLICIES = {"none": Policy.none, "light": Policy.light, "resnet": Policy.resnet, "strong": Policy.strong}

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
SeedOption = Annotated[int, typer.Option(help="Two CPU runs with one seed give the same weights.")]


@app.command()
def finetune(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="Folder for the finished run.")] = Path("run"),
    backbone: BackboneOption = "auto",
    recipe: Annotated[
        str, typer.Option(help="auto (measured), probe, few, all, scratch, or the recipe.json of a search.")
    ] = "auto",
    validation: Annotated[
        str | None,
        typer.Option(help="A fraction of the training images, or a dataset; default: its own split, else a fifth."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of what the recipe says.", min=0)] = None,
    time_limit: Annotated[str | None, typer.Option(help="Stop in time with the best weights: 90s, 10m, 1h30m.")] = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    snapshots: Annotated[int, typer.Option(help="Cycles of the learning rate whose ends are averaged.", min=0)] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="What the audit finds is an error: exit code 2.")] = False,
    devices: Annotated[
        str | None, typer.Option(help="That train together: how many, or GPU:0,GPU:1; default: all GPUs.")
    ] = None,
    input_workers: Annotated[
        str | None, typer.Option(help="host:port,host:port of `recipes input-worker`: they augment the images.")
    ] = None,
):
    """Train the best classifier for labelled images, and say why it is made as it is. Stopped? Run it again."""
    result = recipes.finetune(
        _listed(dataset, within),
        backbone=backbone,
        recipe=_recipe(recipe, epochs),
        validation=_fraction(validation),
        time_limit=time_limit,
        seed=seed,
        output=output,
        snapshots=snapshots,
        strict=strict,
        devices=_devices(devices),
        input_workers=input_workers.split(",") if input_workers else (),
    )
    if not leads():
        print(f"worker 0 has written the run: {output}")
        return
    output = saved_in_the_end(result, output)
    result.report(output / "report.html")
    print(f"\n{result}\n")
    print(f"run:    {output}\nreport: {output / 'report.html'}")
    print(f"next:   recipes predict {output} FOLDER    recipes export {output} serving")


@app.command()
def pretrain(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="Folder for the run and its backbone.keras.")] = Path("base"),
    epochs: Annotated[int | None, typer.Option(help="Instead of what the recipe says.", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side of the images that the network takes, pixels.", min=16)] = 32,
    seed: SeedOption = 0,
):
    """Train a compact network from nothing on a large dataset, to finetune it elsewhere."""
    changes = {"size": size} if epochs is None else {"size": size, "epochs": epochs}
    result = recipes.pretrain(dataset, recipe=recipes.adjusted("scratch", **changes), output=output, seed=seed)
    print(f"\n{result}\n\nnext:   recipes finetune PHOTOS --backbone {output / 'backbone.keras'}")


@app.command()
def audit(
    dataset: DatasetArgument,
    strict: Annotated[bool, typer.Option("--strict", help="Findings are an error: exit code 2.")] = False,
    within: WithinOption = None,
):
    """Look at every image once: what is damaged, what is odd, what occurs twice, and what becomes of it."""
    print(recipes.audit(_listed(dataset, within), strict=strict))


@app.command()
def probe(
    dataset: DatasetArgument, backbone: BackboneOption = "auto", seed: SeedOption = 0, within: WithinOption = None
):
    """How well each stage of the frozen network separates the classes."""
    recipes.probe(_listed(dataset, within), backbone=backbone, seed=seed)


@app.command()
def rank(
    dataset: DatasetArgument,
    backbones: Annotated[list[str], typer.Argument(help="Networks to compare, each as --backbone takes it.")],
    seed: SeedOption = 0,
):
    """Which of several networks to finetune: each looks at the images once."""
    ranking = recipes.rank(dataset, backbones, seed=seed)
    print(f"{ranking}\n\nnext:   recipes finetune {dataset} --backbone '{ranking.best.name}'")


@app.command()
def evaluate(
    run: RunArgument,
    dataset: DatasetArgument,
    crops: CropsOption = "1",
    scales: Annotated[list[int] | None, typer.Option(help="Short sides in pixels, one --scales each.")] = None,
    mode: Annotated[str, typer.Option(help="auto, crops, or dense (whole images).")] = "auto",
    within: WithinOption = None,
):
    """Accuracy of a run on other labelled images, with its 95 % interval."""
    found = recipes.load(run).evaluate(
        _listed(dataset, within), crops=_crops(crops), scales=tuple(scales) if scales else None, mode=mode
    )  # fmt: skip
    print(found)


Runs = Annotated[list[Path], typer.Argument(help="Folders that `recipes finetune --output` wrote.")]
JoinedOption = Annotated[Path, typer.Option(help="Folder for the joint run.")]
HeldOutOption = Annotated[str | None, typer.Option(help="Labelled images that no run was trained on.")]


@app.command()
def ensemble(runs: Runs, output: JoinedOption = Path("ensemble"), validation: HeldOutOption = None):
    """Average the predictions of several runs into one."""
    _join(recipes.ensemble, runs, output, validation)


@app.command()
def soup(runs: Runs, output: JoinedOption = Path("soup"), validation: HeldOutOption = None):
    """Average the weights of several runs of one architecture: the cost of one model."""
    _join(recipes.soup, runs, output, validation)


def _join(how, runs, output: Path, validation: str | None) -> None:
    joint = how([recipes.load(run) for run in runs], validation)
    joint.save(output)
    print(f"{joint}\n\nrun:    {output}")


@app.command()
def ablate(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    recipe: Annotated[str, typer.Option(help="auto (measured), probe, few, all, or scratch.")] = "auto",
    trick: Annotated[list[str] | None, typer.Option(help="One --trick each; default: all.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="No training is begun that would end later: 10m, 2h.")] = None,
    seed: SeedOption = 0,
):
    """Measure what each trick of the training is worth on a dataset."""
    recipes.ablate(dataset, backbone=backbone, recipe=recipe, tricks=trick, time_limit=time_limit, seed=seed)


@app.command()
def search(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Option(help="Folder for recipe.json, trials.csv, search.svg and report.html.")
    ] = Path("search"),
    backbone: BackboneOption = "auto",
    recipe: Annotated[str, typer.Option(help="What is varied: auto (measured), few, all, scratch.")] = "auto",
    trials: Annotated[int, typer.Option(help="Of all processes together.", min=1)] = 30,
    storage: Annotated[
        str | None, typer.Option(help="sqlite:///search.db or another optuna storage: processes share the trials.")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(help="No trial begins that would end later: 10m, 2h.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of what the recipe says.", min=1)] = None,
    sampler: Annotated[str, typer.Option(help="tpe (coarse at random, then fine), or random for all.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="Which trials stop early: median, hyperband, or none.")] = "median",
    seed: SeedOption = 0,
    within: WithinOption = None,
):
    """Search the recipe's hyperparameters at random, coarse to fine; the winner is a recipe for finetune."""
    check_writable(output)
    found = recipes.search(
        _listed(dataset, within), backbone=backbone, recipe=_recipe(recipe, epochs), trials=trials, storage=storage,
        time_limit=time_limit, sampler=sampler, pruner=pruner, seed=seed,
    )  # fmt: skip
    found.save(output)
    print(f"\nnext:   recipes finetune {dataset} --backbone '{backbone}' --recipe {output / 'recipe.json'}")


@app.command()
def diagnose(
    run: RunArgument,
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="The picture to write: .png, .svg or .pdf.")] = Path("diagnosis.png"),
    within: WithinOption = None,
):
    """The lecture's babysitting: what to look at in a network and its training, with verdicts in words."""
    _check_picture(output)
    recipes.diagnose(recipes.load(run), _listed(dataset, within)).figure().savefig(output)
    print(output)


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[Path, typer.Argument(help="An image, or a folder of them.")],
    output: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("predictions.csv"),
    crops: CropsOption = "1",
    samples: Annotated[int, typer.Option(help="Average over so many draws of the training's noise.", min=0)] = 0,
    abstain: Annotated[float | None, typer.Option(help="No class name below this probability.")] = None,
):
    """Classify images into a CSV: path, class_name, probability, error, then each class's probability."""
    if not output.parent.is_dir():
        raise recipes.OutputError(f"{output} cannot be written: the folder {output.parent} does not exist")
    result, data = recipes.load(run), unlabelled(images)
    errors = [fact.error for fact in look(data)]
    good = [name for name, error in zip(data.names, errors, strict=True) if not error]
    predictions = iter(result.predict(good, crops=_crops(crops), samples=samples, abstain=abstain))
    with open(output, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class_name", "probability", "error", *result.class_names])
        for name, error in zip(data.names, errors, strict=True):
            if error:
                writer.writerow([name, "", "", error, *[""] * len(result.class_names)])
                continue
            said = next(predictions)
            values = [f"{p:.6f}" for p in said.probabilities]
            writer.writerow([name, said.class_name or "", f"{said.probability:.6f}", "", *values])
    print(f"{len(good)} images classified, {len(errors) - len(good)} unreadable: {output}")
    if not good:
        raise recipes.DataError(f"none of the {len(errors)} images in {images} can be decoded: {errors[0]}")


@app.command()
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
):
    """Write the classifier for others to run, after a fresh process has answered with it as the run does."""
    from recipes.export import check_backend

    given = dict(top_k=top_k, abstain=abstain, quantize=quantize, proof=proof, max_pixels=max_pixels)
    crops = int(crops) if crops.isdecimal() else crops
    check_backend(format)
    path = recipes.load(run).export(directory, format=format, crops=crops, **given)
    print(f"{format}: {path}")
    if format == "saved_model":
        print(f"next:   recipes serve {path}    saved_model_cli show --dir {path} --tag_set serve --all")


@app.command()
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
    from recipes.serve import serve

    size = body * 2**20
    limits = Limits(batch, workers, queue, size, max(Limits.bodies, size), idle)
    serve(directory, host=host, port=port, name=name, limits=limits)


@app.command()
def preview(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="The picture to write: .png, .svg or .pdf.")] = Path("preview.png"),
    policy: Annotated[str, typer.Option(help="none, light, resnet, or strong.")] = "light",
    size: Annotated[int, typer.Option(help="Side of the crops, pixels.", min=8)] = 224,
    seed: SeedOption = 0,
):
    """Draw some images and what an augmentation policy makes of them."""
    if policy not in POLICIES:
        raise recipes.RecipeError(f"policy is {policy!r}; expected one of {list(POLICIES)}")
    _check_picture(output)
    data = load(dataset).train
    spread = data.subset(np.linspace(0, len(data) - 1, min(4, len(data))).astype(int))
    augment.preview(spread.source(), POLICIES[policy](size), seed=seed).savefig(output)
    print(output)


@app.command()
def pack(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(help="Folder for the pack: a dataset like the one that it is made of.")],
    shards: Annotated[
        int | None, typer.Option(help="Files for the training images; default: of 256 MiB each.", min=1)
    ] = None,
    within: WithinOption = None,
):
    """Write a dataset into few large files with checksums. Stopped? Run it again."""
    print(f"{recipes.pack(_listed(dataset, within), out, shards=shards)}")
    print(f"pack:   {out}\nnext:   recipes finetune {out}")


@app.command("input-worker")
def input_worker(
    host: Annotated[
        str | None, typer.Option(help="By which trainings reach this machine.", show_default="its own name")
    ] = None,
    port: Annotated[int, typer.Option(help="This one and the next; 0: two free ones.", min=0, max=65534)] = PORT,
):
    """Read and augment images for trainings elsewhere (finetune --input-workers), in a network that you trust."""
    from recipes.input_worker import serve

    serve(host, port)


@app.command()
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


def _recipe(recipe: str, epochs: int | None):
    if not recipe.endswith(".json"):
        return recipe if epochs is None else recipes.adjusted(recipe, epochs=epochs)
    loaded = load_recipe(recipe)
    return loaded if epochs is None else replace(loaded, epochs=epochs).because(f"epochs = {epochs}: asked for")


def _listed(dataset: str, within: Path | None):
    return dataset if within is None else recipes.from_csv(dataset, within=within)


def _check_picture(path: Path) -> None:
    """Before anything long begins."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise recipes.RecipeError(f"output is {str(path)!r}; expected a picture: .png, .svg or .pdf")
    check_writable(path.absolute().parent)


def _crops(crops: str) -> int | str:
    return int(crops) if crops.isdigit() else crops


def _fraction(validation: str | None):
    try:
        return validation if validation is None else float(validation)
    except ValueError:
        return validation


def _devices(devices: str | None):
    return devices if devices is None else int(devices) if devices.isdecimal() else devices.split(",")


def _terminated(number, frame):
    sys.exit(128 + number)


def main() -> None:
    """Entry point: exit code 0 done, 2 wrong use or wrong data, 130 or 143 stopped by a signal."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except recipes.PeerLost as error:
        print(f"{error}. This one does so by itself", file=sys.stderr)
        sys.stdout.flush(), sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except (recipes.RecipesError, augment.PolicyError) as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"error: {printable(str(error))}", style="bold red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
