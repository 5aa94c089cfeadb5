"""The commands that train networks, and those that compare ways to train."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import recipes
from recipes.cli.options import BackboneOption, ColumnOption, DatasetArgument, SeedOption, WithinOption, read_csv
from recipes.core.files import check_writable
from recipes.distributed.job import leads
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import NAMES, Recipe
from recipes.runs.recipe_file import load_recipe
from recipes.runs.resume import save_with_retries

RECIPES = ("auto", *NAMES)
RecipeOption = Annotated[
    str,
    typer.Option(help="auto (measured), probe, few, all, scratch, the folder of a run or a search, or a recipe.json."),
]


def finetune(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="Folder for the finished run.")] = Path("run"),
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    validation: Annotated[
        str | None,
        typer.Option(help="A fraction of the training images, or a dataset; default: its own split, else a fifth."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=0)] = None,
    time_limit: Annotated[str | None, typer.Option(help="Return the best weights in this time: 90s, 1h30m.")] = None,
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
) -> None:
    """Train the best classifier for labelled images, and explain each decision. Run it again to resume it."""
    result = recipes.finetune(
        read_csv(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, epochs),
        validation=read_csv(_fraction(validation), within, column),
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
    output = save_with_retries(result, output)
    _report(result, output)
    print(f"next:   recipes predict {output} FOLDER    recipes export {output} serving")


def pretrain(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="Folder for the run and its backbone.keras.")] = Path("base"),
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side of the images that the network takes, in pixels.", min=16)] = 32,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Train a compact network from scratch on a large dataset, to finetune it on others."""
    changes = {"size": size} if epochs is None else {"size": size, "epochs": epochs}
    recipe = recipes.adjusted("scratch", **changes)
    result = recipes.pretrain(read_csv(dataset, within, column), recipe=recipe, output=output, seed=seed)
    _report(result, output)
    print(f"next:   recipes finetune PHOTOS --backbone {output / 'backbone.keras'}")


def _report(result: recipes.Result, output: Path) -> None:
    result.report(output / "report.html")
    print(f"\n{result}\n\nrun:    {output}\nreport: {output / 'report.html'}")


def probe(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Measure how well each stage of the frozen network separates the classes."""
    recipes.probe(read_csv(dataset, within, column), backbone=backbone, seed=seed)


def rank(
    dataset: DatasetArgument,
    backbones: Annotated[list[str], typer.Argument(help="Networks to compare, each as --backbone takes it.")],
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Rank several networks for finetuning; each processes the images once."""
    ranking = recipes.rank(read_csv(dataset, within, column), backbones, seed=seed)
    print(f"{ranking}\n\nnext:   recipes finetune {dataset} --backbone '{ranking.best.name}'")


Runs = Annotated[list[Path], typer.Argument(help="Folders that `recipes finetune --output` wrote.")]
JoinedOption = Annotated[Path, typer.Option(help="Folder for the joint run.")]
HeldOutOption = Annotated[str | None, typer.Option(help="Labelled images that no run was trained on.")]


def _joining(join: Callable[..., recipes.Result], help: str) -> Callable[..., None]:
    """Return the command that joins several runs by a function of `recipes`."""

    def command(
        runs: Runs,
        output: JoinedOption = Path(join.__name__),
        validation: HeldOutOption = None,
        within: WithinOption = None,
        column: ColumnOption = None,
    ) -> None:
        images = read_csv(validation, within, column)  # first: a wrong table is reported before the runs are loaded
        joint = join([recipes.load(run) for run in runs], images)
        joint.save(output)
        _report(joint, output)
        print(f"next:   recipes predict {output} FOLDER    recipes export {output} serving")

    command.__name__, command.__doc__ = join.__name__, help
    return command


ensemble = _joining(recipes.ensemble, "Average the predictions of several runs into one.")
soup = _joining(recipes.soup, "Average the weights of several runs of one architecture: the cost of one model.")


def ablate(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    trick: Annotated[list[str] | None, typer.Option(help="A trick; may be repeated; default: all.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="No training begins that would end later: 10m, 2h.")] = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Measure the gain of each trick of the training on a dataset."""
    recipes.ablate(
        read_csv(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, None),
        tricks=trick,
        time_limit=time_limit,
        seed=seed,
    )


def search(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Option(help="Folder for recipe.json, trials.csv, search.svg and report.html.")
    ] = Path("search"),
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    trials: Annotated[int, typer.Option(help="Number of trials of all processes together.", min=1)] = 30,
    storage: Annotated[
        str | None, typer.Option(help="sqlite:///search.db or another Optuna storage: processes share the trials.")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(help="No trial begins that would end later: 10m, 2h.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs; default: that of the recipe.", min=1)] = None,
    sampler: Annotated[str, typer.Option(help="tpe (coarse at random, then fine), or random for all.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="Which trials stop early: median, hyperband, or none.")] = "median",
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
) -> None:
    """Search the recipe's hyperparameters at random, coarse to fine; the winner is a recipe for finetune."""
    check_writable(output)
    found = recipes.search(
        read_csv(dataset, within, column),
        backbone=backbone, recipe=_recipe(recipe, epochs), trials=trials, storage=storage,
        time_limit=time_limit, sampler=sampler, pruner=pruner, seed=seed,
    )  # fmt: skip
    found.save(output)
    print(f"\nreport: {output / 'report.html'}")
    print(f"next:   recipes finetune {dataset} --backbone '{backbone}' --recipe {output / 'recipe.json'}")


def _recipe(recipe: str, epochs: int | None) -> str | Adjusted | Recipe:
    """Return the recipe of --recipe and --epochs.

    Raises:
        RecipeError: For something that is neither a name nor a recipe file.
    """
    if recipe in RECIPES:
        return recipe if epochs is None else recipes.adjusted(recipe, epochs=epochs)
    if not recipe.endswith(".json") and not Path(recipe).exists():
        raise recipes.RecipeError(
            f"--recipe is {recipe!r}, which does not exist; expected one of {RECIPES}, the folder of a run or a "
            "search, or a recipe.json",
            code="cli.recipe", field="--recipe", value=recipe,
        )  # fmt: skip
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


def _fraction(validation: str | None) -> str | float | None:
    """Return --validation as a number if it is one."""
    try:
        return validation if validation is None else float(validation)
    except ValueError:
        return validation


def _devices(devices: str | None) -> int | list[str] | None:
    if devices is None:
        return None
    return int(devices) if devices.isdecimal() else devices.split(",")
