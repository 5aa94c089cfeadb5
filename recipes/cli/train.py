"""The commands that train a network, or find out how to."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import recipes
from recipes.cli.options import BackboneOption, ColumnOption, DatasetArgument, SeedOption, WithinOption, listed
from recipes.core.files import check_writable
from recipes.distributed.job import leads
from recipes.planning.recipe import NAMES
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
    epochs: Annotated[int | None, typer.Option(help="Instead of what the recipe says.", min=0)] = None,
    time_limit: Annotated[str | None, typer.Option(help="Stop in time with the best weights: 90s, 10m, 1h30m.")] = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
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
        listed(dataset, within, column),
        backbone=backbone,
        recipe=_recipe(recipe, epochs),
        validation=listed(_fraction(validation), within, column),
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
    _tell(result, output)
    print(f"next:   recipes predict {output} FOLDER    recipes export {output} serving")


def pretrain(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Option(help="Folder for the run and its backbone.keras.")] = Path("base"),
    epochs: Annotated[int | None, typer.Option(help="Instead of what the recipe says.", min=1)] = None,
    size: Annotated[int, typer.Option(help="Side of the images that the network takes, pixels.", min=16)] = 32,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Train a compact network from nothing on a large dataset, to finetune it elsewhere."""
    changes = {"size": size} if epochs is None else {"size": size, "epochs": epochs}
    recipe = recipes.adjusted("scratch", **changes)
    result = recipes.pretrain(listed(dataset, within, column), recipe=recipe, output=output, seed=seed)
    _tell(result, output)
    print(f"next:   recipes finetune PHOTOS --backbone {output / 'backbone.keras'}")


def _tell(result, output: Path) -> None:
    result.report(output / "report.html")
    print(f"\n{result}\n\nrun:    {output}\nreport: {output / 'report.html'}")


def probe(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """How well each stage of the frozen network separates the classes."""
    recipes.probe(listed(dataset, within, column), backbone=backbone, seed=seed)


def rank(
    dataset: DatasetArgument,
    backbones: Annotated[list[str], typer.Argument(help="Networks to compare, each as --backbone takes it.")],
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Which of several networks to finetune: each looks at the images once."""
    ranking = recipes.rank(listed(dataset, within, column), backbones, seed=seed)
    print(f"{ranking}\n\nnext:   recipes finetune {dataset} --backbone '{ranking.best.name}'")


Runs = Annotated[list[Path], typer.Argument(help="Folders that `recipes finetune --output` wrote.")]
JoinedOption = Annotated[Path, typer.Option(help="Folder for the joint run.")]
HeldOutOption = Annotated[str | None, typer.Option(help="Labelled images that no run was trained on.")]


def ensemble(
    runs: Runs,
    output: JoinedOption = Path("ensemble"),
    validation: HeldOutOption = None,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Average the predictions of several runs into one."""
    _join(recipes.ensemble, runs, output, listed(validation, within, column))


def soup(
    runs: Runs,
    output: JoinedOption = Path("soup"),
    validation: HeldOutOption = None,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Average the weights of several runs of one architecture: the cost of one model."""
    _join(recipes.soup, runs, output, listed(validation, within, column))


def _join(how, runs, output: Path, validation) -> None:
    joint = how([recipes.load(run) for run in runs], validation)
    joint.save(output)
    _tell(joint, output)
    print(f"next:   recipes predict {output} FOLDER    recipes export {output} serving")


def ablate(
    dataset: DatasetArgument,
    backbone: BackboneOption = "auto",
    recipe: RecipeOption = "auto",
    trick: Annotated[list[str] | None, typer.Option(help="One --trick each; default: all.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="No training is begun that would end later: 10m, 2h.")] = None,
    seed: SeedOption = 0,
    within: WithinOption = None,
    column: ColumnOption = None,
):
    """Measure what each trick of the training is worth on a dataset."""
    recipes.ablate(
        listed(dataset, within, column),
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
    column: ColumnOption = None,
):
    """Search the recipe's hyperparameters at random, coarse to fine; the winner is a recipe for finetune."""
    check_writable(output)
    found = recipes.search(
        listed(dataset, within, column),
        backbone=backbone, recipe=_recipe(recipe, epochs), trials=trials, storage=storage,
        time_limit=time_limit, sampler=sampler, pruner=pruner, seed=seed,
    )  # fmt: skip
    found.save(output)
    print(f"\nreport: {output / 'report.html'}")
    print(f"next:   recipes finetune {dataset} --backbone '{backbone}' --recipe {output / 'recipe.json'}")


def _recipe(recipe: str, epochs: int | None):
    if recipe in RECIPES:
        return recipe if epochs is None else recipes.adjusted(recipe, epochs=epochs)
    if not recipe.endswith(".json") and not Path(recipe).exists():
        raise recipes.RecipeError(
            f"--recipe is {recipe!r}, which is no file or folder; expected one of {RECIPES}, the folder of a run or a "
            "search, or a recipe.json"
        )
    loaded = load_recipe(recipe)
    if epochs is not None:
        return replace(loaded, epochs=epochs).because(f"epochs = {epochs}: requested")
    if loaded.epochs or loaded.name == "probe":
        return loaded
    return loaded.because(
        f"{recipe} kept the linear classifier, so its recipe takes no gradient steps; --epochs trains the network on "
        "the same stages"
    )


def _fraction(validation: str | None):
    try:
        return validation if validation is None else float(validation)
    except ValueError:
        return validation


def _devices(devices: str | None):
    return devices if devices is None else int(devices) if devices.isdecimal() else devices.split(",")
