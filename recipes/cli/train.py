"""The commands that train networks, and those that compare ways to train."""

from collections.abc import Callable
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
    WithinOption,
    check_dataset,
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
        help="A fraction of the training images, or a dataset; default: its own split, else a fifth.",
    ),
]
TimeOption = Annotated[str | None, typer.Option(help="Return the best weights in this time: 90s, 1h30m.")]
StudyTimeOption = Annotated[str | None, typer.Option(help="No training begins that would end later: 10m, 2h.")]
EpochsOption = Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=0)]


def finetune(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(*OutputFlags, help="Folder for the finished run.")] = Path("run"),
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    validation: ValidationOption = None,
    epochs: EpochsOption = None,
    time_limit: TimeOption = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
    snapshots: Annotated[int, typer.Option(help="Learning-rate cycles whose models are averaged.", min=0)] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Treat audit findings as an error: exit code 2.")] = False,
    devices: Annotated[
        str | None, typer.Option(help="Devices that train together: a number, or GPU:0,GPU:1; default: all GPUs.")
    ] = None,
    input_workers: Annotated[
        str | None,
        typer.Option(help="host:port,host:port of `recipes input-worker`, which augment the images."),
    ] = None,
    verbosity: int = 1,
) -> Answer:
    """Train the best classifier for labelled images, and explain each decision. Run it again to resume it."""
    from recipes.distributed.job import leads
    from recipes.runs.resume import save_with_retries

    result = recipes.finetune(
        read_csv(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, epochs),
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
    size: Annotated[int, typer.Option(help="Side of the images that the network takes, in pixels.", min=16)] = 32,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Train a compact network from scratch on a large dataset, to finetune it on others."""
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
    backbones: Annotated[list[str], typer.Argument(help="Networks to compare, each as --backbone takes it.")],
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
        f"{ranking.best.name} is best, by the likelihood of a linear classifier on its features",
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
    """Return the command that joins several runs by the function of `recipes` of this name."""

    def command(
        runs: Runs,
        output: JoinedOption = Path(name),
        validation: HeldOutOption = None,
        within: WithinOption = None,
        column: ColumnOption = None,
    ) -> Answer:
        images = read_csv(validation, within, column)  # first: a wrong table is reported before the runs are loaded
        joint = getattr(recipes, name)([recipes.load(run) for run in runs], images)
        joint.save(output)
        return run_answer(joint, output)

    command.__name__, command.__doc__ = name, help
    return command


ensemble = _joining("ensemble", "Average the predictions of several runs into one.")
soup = _joining("soup", "Average the weights of several runs of one architecture: the cost of one model.")


def ablate(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    trick: Annotated[list[str] | None, typer.Option(help="A trick; may be repeated; default: all.")] = None,
    time_limit: StudyTimeOption = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Measure the gain of each trick of the training on a dataset."""
    found = recipes.ablate(
        read_csv(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, None),
        tricks=trick,
        time_limit=time_limit,
        seed=seed,
    )
    better = [row.trick for row in found.rows[1:] if row.verdict == "better"]
    names = ("trick", "accuracy", "gain", "interval", "nats", "seconds", "kept", "verdict", "note")
    rows = [{name: getattr(row, name) for name in names} for row in found.rows]
    headline = f"{', '.join(better)}: a significant gain" if better else "no trick is a significant gain"
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
        str | None, typer.Option(help="sqlite:///search.db or another Optuna storage: processes share the trials.")
    ] = None,
    time_limit: StudyTimeOption = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=1)] = None,
    sampler: Annotated[
        Literal["tpe", "random"], typer.Option(help="tpe: coarse at random, then fine; random: all at random.")
    ] = "tpe",
    pruner: Annotated[Literal["median", "hyperband", "none"], typer.Option(help="Which trials stop early.")] = "median",
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> Answer:
    """Search the recipe's hyperparameters at random, coarse to fine; the winner is a recipe for finetune."""
    check_writable(output)
    found = recipes.search(
        read_csv(dataset, within, column),
        backbone=backbone, recipe=_recipe(recipe, epochs), trials=trials, storage=storage,
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


def _recipe(recipe: str, epochs: int | None) -> "str | Adjusted | Recipe":
    """Return the recipe of --recipe and --epochs."""
    from recipes.runs.recipe_file import load_recipe

    if recipe in RECIPES:
        return recipe if epochs is None else recipes.adjusted(recipe, epochs=epochs)
    loaded = load_recipe(recipe)
    if epochs is not None:
        return replace(loaded, epochs=epochs).because("plan.changed", "epochs = {epochs}: requested", epochs=epochs)
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
