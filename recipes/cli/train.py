"""Define the commands that train networks and compare ways to train."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import recipes
from recipes.cli.answers import evaluation_data, run_answer, table
from recipes.cli.command import Answer
from recipes.cli.options import (
    RECIPES,
    BackboneOption,
    ColumnOption,
    DatasetArgument,
    OutputFlags,
    RecipeOption,
    SeedOption,
    SetOption,
    WithinOption,
    check_dataset,
    parse_changes,
    parse_fraction,
    read_csv,
)
from recipes.core.files import check_writable
from recipes.core.text import percent

if TYPE_CHECKING:
    from recipes import Adjusted, Recipe

ValidationOption = Annotated[
    str | None,
    typer.Option(
        callback=check_dataset,
        help="A fraction of the training images, or a dataset; default: the dataset's own split, else a fifth.",
    ),
]
TimeOption = Annotated[
    str | None, typer.Option(help="Time limit of the job, which returns the best weights so far: 90s, 1h30m.")
]
StudyTimeOption = Annotated[
    str | None, typer.Option(help="Time limit; no training begins that would end later: 10m, 2h.")
]
EpochsOption = Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=0)]


def finetune(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(*OutputFlags, help="Folder for the finished run.")] = Path("run"),
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    validation: ValidationOption = None,
    epochs: EpochsOption = None,
    change: SetOption = None,
    time_limit: TimeOption = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
    snapshots: Annotated[
        int, typer.Option(help="Number of learning-rate cycles whose models are averaged.", min=0)
    ] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Treat audit findings as an error: exit code 2.")] = False,
    devices: Annotated[
        str | None, typer.Option(help="Devices that train together: a number, or GPU:0,GPU:1; default: all GPUs.")
    ] = None,
    input_workers: Annotated[
        str | None,
        typer.Option(
            help="Addresses of `recipes input-worker` processes that augment the images: host:port,host:port."
        ),
    ] = None,
    verbosity: int = 1,
) -> Answer:
    """Train the best classifier for labelled images, and explain each decision. Run it again to resume it."""
    from recipes.distributed.job import leads
    from recipes.runs.resume import save_with_retries

    result = recipes.finetune(
        read_csv(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, parse_changes(change, epochs)),
        validation=read_csv(parse_fraction(validation), within, column),
        time_limit=time_limit,
        seed=seed,
        output=output,
        snapshots=snapshots,
        strict=strict,
        devices=_devices(devices),
        input_workers=input_workers.split(",") if input_workers else (),
        verbose=verbosity,
    )
    if not leads():
        return Answer(f"worker 0 has written the run: {output}", data={"run": output})
    return run_answer(result, save_with_retries(result, output))


def pretrain(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(*OutputFlags, help="Folder for the run and its backbone.keras.")] = Path(
        "base"
    ),
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side in pixels of the images that the network takes.", min=16)] = 32,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Train a compact network from scratch on a large dataset, as a backbone for other datasets."""
    changes = {"size": size} if epochs is None else {"size": size, "epochs": epochs}
    recipe = recipes.adjusted("scratch", **changes)
    result = recipes.pretrain(read_csv(dataset, within, column), recipe=recipe, output=output, seed=seed)
    backbone = quote(str(output / "backbone.keras"))
    return replace(run_answer(result, output), next=(f"recipes finetune PHOTOS --backbone {backbone}",))


def probe(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Measure how well each stage of the frozen network separates the classes."""
    found = recipes.probe(read_csv(dataset, within, column), backbone=backbone, seed=seed)
    names = ("name", "features", "accuracy", "interval", "nll", "logme", "seconds")
    stages = [{name: getattr(stage, name) for name in names} for stage in found.stages]
    return Answer(
        f"{percent(found.best.accuracy, found.best.interval)}, cross-validated, by a linear classifier on "
        f"{found.best.name}",
        table(found.table()),
        next=(f"recipes finetune {quote(dataset)} --backbone {quote(backbone)}",),
        data={"stages": stages, "best": found.best.name, "seconds": found.seconds},
    )


def rank(
    dataset: DatasetArgument,
    backbones: Annotated[list[str], typer.Argument(help="Networks to compare, each in the form of --backbone.")],
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Rank several networks for finetuning; each processes the images once."""
    ranking = recipes.rank(read_csv(dataset, within, column), backbones, seed=seed)
    networks = [
        {"name": each.name, "accuracy": each.probe.head.accuracy, "interval": each.probe.head.interval,
         "nll": each.probe.head.nll, "weights": each.weights, "size": each.size, "seconds": each.probe.seconds}
        for each in ranking.networks
    ]  # fmt: skip
    return Answer(
        f"{ranking.best.name} is best: a linear classifier on its features has the highest likelihood",
        table(ranking.table()),
        next=(f"recipes finetune {quote(dataset)} --backbone {quote(ranking.best.name)}",),
        data={"networks": networks},
    )


Runs = Annotated[
    list[Path], typer.Argument(help="Folders that `recipes finetune --output` wrote.", exists=True, file_okay=False)
]
JoinedOption = Annotated[Path, typer.Option(*OutputFlags, help="Folder for the joint run.")]
HeldOutOption = Annotated[
    str | None, typer.Option(callback=check_dataset, help="Labelled images that no run was trained on.")
]


def _joining(name: str, help: str) -> Callable[..., Answer]:
    """Return the command that joins several runs with the function `name` of `recipes`."""

    def command(
        runs: Runs,
        output: JoinedOption = Path(name),
        validation: HeldOutOption = None,
        within: WithinOption = None,
        column: ColumnOption = None,
    ) -> Answer:
        # read first, so that a wrong table is reported before the runs are loaded
        images = read_csv(validation, within, column)
        joint = getattr(recipes, name)([recipes.load(run) for run in runs], images)
        joint.save(output)
        return run_answer(joint, output)

    command.__name__, command.__doc__ = name, help
    return command


ensemble = _joining("ensemble", "Average the predictions of several runs into one.")
soup = _joining("soup", "Average the weights of several runs of one architecture, at the cost of one model.")


def ablate(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    change: SetOption = None,
    trick: Annotated[
        list[str] | None, typer.Option(help="A trick to measure; may be given several times; default: all tricks.")
    ] = None,
    time_limit: StudyTimeOption = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Measure the gain of each trick of the training on a dataset."""
    found = recipes.ablate(
        read_csv(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, parse_changes(change)),
        tricks=trick,
        time_limit=time_limit,
        seed=seed,
    )
    better = [row.trick for row in found.rows[1:] if row.verdict == "better"]
    names = ("trick", "accuracy", "gain", "interval", "nats", "seconds", "kept", "verdict", "note")
    rows = [{name: getattr(row, name) for name in names} for row in found.rows]
    headline = f"significant gain: {', '.join(better)}" if better else "no trick has a significant gain"
    return Answer(headline, str(found), data={"rows": rows})


def search(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Option(*OutputFlags, help="Folder for recipe.json, trials.csv, search.svg and report.html.")
    ] = Path("search"),
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    trials: Annotated[int, typer.Option(help="Number of trials of all processes together.", min=1)] = 30,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage through which processes share the trials, such as sqlite:///search.db."),
    ] = None,
    time_limit: StudyTimeOption = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=1)] = None,
    change: SetOption = None,
    sampler: Annotated[
        Literal["tpe", "random"],
        typer.Option(help="tpe: a third of the trials at random, the others near good trials; random: all at random."),
    ] = "tpe",
    pruner: Annotated[
        Literal["median", "hyperband", "none"], typer.Option(help="Rule that stops trials early.")
    ] = "median",
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Search the recipe's hyperparameters at random, coarse to fine, and write the best recipe for finetune."""
    check_writable(output)
    found = recipes.search(
        read_csv(dataset, within, column),
        backbone=backbone, recipe=_recipe(recipe, parse_changes(change, epochs)), trials=trials, storage=storage,
        time_limit=time_limit, sampler=sampler, pruner=pruner, seed=seed,
    )  # fmt: skip
    found.save(output)
    winner = quote(str(output / "recipe.json"))
    data: dict[str, Any] = {"values": found.best.values, "trials": len(found.trials), "output": output}
    return Answer(
        f"{percent(found.accuracy.accuracy, found.accuracy.interval)} by the best of {len(found.trials)} trials, "
        f"saved in {output}/",
        str(found),
        next=(f"recipes finetune {quote(dataset)} --backbone {quote(backbone)} --recipe {winner}",),
        data=data | {"validation": evaluation_data(found.accuracy)},
    )


def _recipe(recipe: str, changes: Mapping[str, Any]) -> "str | Adjusted | Recipe":
    """Return the recipe of --recipe, changed by --epochs and --set."""
    from recipes.planning.ready_made import changed
    from recipes.runs.recipe_file import load_recipe

    if recipe in RECIPES:
        return recipes.adjusted(recipe, **changes) if changes else recipe
    loaded = load_recipe(recipe)
    if changes:
        recipes.adjusted(**changes)  # checks the names and the values of the fields
        assignments = ", ".join(f"{name} = {value}" for name, value in changes.items())
        return changed(loaded, changes).because("plan.changed", "{assignments}: requested", assignments=assignments)
    if loaded.epochs or loaded.name == "probe":
        return loaded
    return loaded.because(
        "recipe.linear_run",
        "the run in {run} returned the linear classifier, so its recipe takes no gradient steps; --epochs trains the "
        "network on the same stages",
        run=recipe,
    )


def _devices(devices: str | None) -> int | list[str] | None:
    if devices is None:
        return None
    return int(devices) if devices.isdecimal() else devices.split(",")
