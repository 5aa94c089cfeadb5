"""Hyperparameter search, coarse to fine, at random and not on a grid: optuna over the fields of a Recipe."""

import csv
import hashlib
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from recipes.core.budget import NO_LIMIT, Budget
from recipes.core.files import check_writable
from recipes.core.output import safe_output
from recipes.data.evaluation_batches import images_alone
from recipes.errors import RecipeError, TrainingError
from recipes.evaluation.metrics import Evaluation, score
from recipes.planning.plan import options
from recipes.planning.recipe import Adjusted, Recipe
from recipes.planning.recipe_json import save_recipe
from recipes.planning.request import Request
from recipes.probing.logistic import content_folds
from recipes.training.callbacks import Quiet
from recipes.training.prepare import Prepared, loaded, prepare
from recipes.training.start import Start
from recipes.training.train import train
from recipes.tuning import study as shared_study
from recipes.tuning.space import SPACE, _check_values, _checked_space, _drawn, _shown
from recipes.tuning.study import claimed

logger = logging.getLogger(__name__)

_FOLDS = 5  # one of them chooses, the others are trained on


@dataclass(frozen=True)
class Trial:
    """One training: the fields of the recipe that were drawn, and how well it classified the images that choose.

    number: among the trials that were to be done, from 0; optuna's own counts those that were begun twice.
    state:  "complete", "pruned" (stopped early, for others were better by then) or "failed".
    """

    number: int
    values: dict[str, object]
    accuracy: float | None
    loss: float | None
    state: str


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found.

    recipe:     the winner's, which `finetune` takes.
    accuracy:   of the winner on the validation images, which took no part in choosing it.
    chosen_by:  how many training images, held out of all trials, chose; none of them was trained on.
    trials:     all of them, in their order.
    coarse:     how many of them were drawn from the whole space before the others; 0: all were.
    study:      optuna's, for its own tools.
    """

    recipe: Recipe
    accuracy: Evaluation
    chosen_by: int
    trials: tuple[Trial, ...]
    coarse: int
    study: object = field(repr=False)

    @property
    def best(self) -> Trial:
        return min((trial for trial in self.trials if trial.state == "complete"), key=lambda trial: trial.loss)

    def __str__(self) -> str:
        states = [trial.state for trial in self.trials]
        told = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in self.best.values.items())
        return (
            f"{_trials(len(states))} ({told}); the best, number {self.best.number + 1}: {shown}\n"
            f"on the {self.chosen_by} images that chose it: {self.best.accuracy:.1%}\n"
            f"on the validation images, which did not: {self.accuracy}\n{self.recipe.reasons[-1]}"
        )

    def save(self, directory) -> None:
        """Write recipe.json (for `recipes finetune --recipe`), trials.csv, search.svg and report.html.

        Raises: OutputError where the folder cannot be written.
        """
        directory = Path(directory)
        check_writable(directory)
        save_recipe(self.recipe, directory / "recipe.json")
        names = sorted({name for trial in self.trials for name in trial.values})
        with open(directory / "trials.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["number", "state", "accuracy", "loss", *names])
            for t in self.trials:
                rows.writerow([t.number + 1, t.state, t.accuracy, t.loss, *(t.values.get(name) for name in names)])
        self.figure().savefig(directory / "search.svg")
        self.report(directory / "report.html")

    def figure(self):
        """A matplotlib Figure: importance, the random layout, and the contour of the two most important fields."""
        from recipes.tuning.figure import figure

        return figure(self)

    def report(self, path) -> None:
        """Write one self-contained HTML page: the winner, what mattered, where was looked, and the trials."""
        from recipes.tuning.report import write

        write(self, path)


@safe_output()
def search(
    dataset=None, *, backbone="auto", recipe="auto", space=None, trials: int = 30, storage: str | None = None,
    time_limit=None, sampler: str = "tpe", pruner: str | None = "median", validation=None, seed: int = 0,
) -> Search:  # fmt: skip
    """Find the recipe's best hyperparameters by training it again and again on a part of the training images.

    The first third of the trials is drawn at random from the whole space (coarse); the others come from where the good
    ones were, by a tree-structured Parzen estimator (fine; Bergstra et al. 2011). Each is stopped early where, at the
    same epoch, the median of those before was better. A fifth of the training images is held out of all trials and
    chooses; the winner is then judged on the validation images. The test split is never looked at.

    recipe:     what to vary: a Recipe with epochs, or a name; "all" where "auto" would take no gradient steps.
    space:      field of Recipe → (low, high), (low, high, "log") or a list of values; None: learning rate, weight
                decay, layer decay, label smoothing.
    trials:     of all processes together.
    storage:    None, or an optuna storage such as "sqlite:///search.db", "postgresql://…": processes and hosts that
                call `search` with the same arguments share the trials, and a search that was stopped goes on. A trial
                whose process dies is run again by another, once it has been silent for a minute.
    time_limit: seconds, or "90s", "10m", "2h". No trial begins that would, at the pace of the slowest before it, end
                later; the winner's second training, by which it is judged, is counted in. A trial that has begun is
                never cut off, so the first one, or a slower one than all before, may end later: that is told.
    sampler:    "tpe", or "random" for all trials.
    pruner:     which trials are stopped early, after an epoch: "median", those whose loss is above the median of the
                others' at that epoch; "hyperband", all but the best third at epochs 1, 3, 9, … of brackets that differ
                in where that begins (Li et al. 2018); None, or "none": no trial.

    validation: as `finetune` takes it; its images judge the winner.
    seed:       of splits, weights and augmentation; without a storage, of what is drawn, too.

    Prints a line per trial, as the lecture's table: accuracy, values, (i / n).

    Raises: RecipeError for a bad space, DataError and BackboneError as `finetune`, TrainingError where no trial ended.

    Example: `recipes.finetune("photos/", recipe=recipes.search("photos/", trials=30).recipe)`
    """
    began = time.monotonic()
    request = Request(dataset, backbone, recipe, validation, time_limit, seed)
    space, seed = _checked_space(SPACE if space is None else space), request.seed
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise RecipeError(f"trials is {trials!r}; expected a positive number")
    if sampler not in ("tpe", "random"):
        raise RecipeError(f"sampler is {sampler!r}; expected 'tpe' or 'random'")
    pruner = None if pruner == "none" else pruner
    if pruner not in shared_study.PRUNERS:
        raise RecipeError(f"pruner is {pruner!r}; expected 'median', 'hyperband' or None")
    budget = Budget.of(request.seconds, began)
    place = shared_study.opened(storage)
    ready = prepare(request, loaded(request), NO_LIMIT)  # the limit is for the whole search
    base = _trainable(ready, space, recipe)
    _check_values(base, space)
    part = _choosing(ready, seed)
    name = _name(base, space, ready, seed)
    study = shared_study.study(place, name, sampler, trials, seed, pruner)
    sizes = len(part.splits.train), len(part.splits.validation)
    longest = max(end for end in space.get("epochs", [base.epochs]) if end != "log")
    logger.info(f"{_trials(trials)} of up to {longest} epochs on {sizes[0]} images; {sizes[1]} others choose")
    shared_study.run(study, _Objective(part, base, space, seed, trials), trials, budget)
    found = _found(study, part, base, ready, seed, shared_study.coarse(trials) if sampler == "tpe" else 0)
    if budget.overrun:
        logger.info(f"the time limit was exceeded by {budget.overrun:.0f} s: no training is cut off")
    return found


class _Objective:
    """Trains one trial; the loss of the choosing images."""

    def __init__(self, part: Start, base: Recipe, space, seed: int, trials: int):
        self.part, self.base, self.space, self.seed, self.trials = part, base, space, seed, trials

    def __call__(self, trial) -> float:
        slot = claimed(trial)
        recipe = replace(self.base, **{name: _drawn(trial, name, ends) for name, ends in self.space.items()})
        values = ", ".join(f"{name}: {_shown(value)}" for name, value in trial.params.items())
        told = f"{values}, ({slot + 1} / {self.trials})"
        keras.utils.set_random_seed(self.seed)
        watch = [_Prune(trial, told), Quiet()]
        trained = train(self.part.copy(), recipe, self.seed, None, watch, measure_crops=False)
        found = trained.fitted.best  # whether or not it beats the linear classifier: that is the winner's business
        trial.set_user_attr("accuracy", found.accuracy)
        logger.info(f"val_acc: {found.accuracy:.4f}, {told}")
        return found.loss


class _Prune(keras.callbacks.Callback):
    def __init__(self, trial, told: str):
        super().__init__()
        self.trial, self.told = trial, told

    def on_epoch_end(self, epoch, logs=None):
        import optuna

        self.trial.report(logs["val_loss"], epoch + 1)
        if self.trial.should_prune():
            self.trial.set_user_attr("accuracy", logs["val_accuracy"])
            after = f"stopped after {epoch + 1} epochs, others were better by then"
            logger.info(f"val_acc: {logs['val_accuracy']:.4f}, {self.told}: {after}")
            raise optuna.TrialPruned


def _trainable(ready: Prepared, space: dict, asked) -> Recipe:
    """What is varied, without what would cost every trial and tell nothing: a second training on all images."""
    recipe = ready.recipe
    if not recipe.epochs:
        instead = Adjusted("all", asked.changes) if isinstance(asked, Adjusted) else "all"
        recipe = options(instead, ready.summary, ready.start.measured)[0]
        logger.info(f"the plan is {ready.recipe.name!r}, which takes no gradient steps: the recipe 'all' is varied")
    whole = {"accumulate": 1} if "batch_size" in space else {}
    return replace(recipe, refit=False, reasons=(), **whole)


def _choosing(ready: Prepared, seed: int) -> Start:
    """Four fifths of the training images to train on, one to choose by; near-copies are never parted."""
    data = ready.start.splits.train
    folds = content_folds(data.labels, ready.audit.pictures(data), folds=_FOLDS, seed=seed)
    return ready.start.fold(np.flatnonzero(folds), np.flatnonzero(folds == 0))


def _found(study, part: Start, base: Recipe, ready: Prepared, seed: int, coarse: int) -> Search:
    told = tuple(_told(trial) for trial in shared_study.finished(study))
    complete = [trial for trial in told if trial.state == "complete"]
    if not told:
        raise TrainingError("the time limit left no room for a single trial; give more time, or fewer epochs")
    if not complete:
        raise TrainingError(f"none of {len(told)} trials came to its end; try smaller learning rates, or more time")
    best = min(complete, key=lambda trial: trial.loss)
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in best.values.items())
    winner = replace(base, **best.values)
    keras.utils.set_random_seed(seed)
    logger.info("the best trial's recipe is trained once more, for the validation images to judge")
    trained = train(part.copy(), winner, seed, None, [Quiet()], measure_crops=False)
    validation = ready.start.splits.validation
    images = images_alone(validation, trained.recipe.evaluation_policy, winner.batch_size)
    judged = score(trained.model.predict(images, verbose=0)[: len(validation)], validation.labels)
    recipe = replace(winner, refit=ready.recipe.refit).because(
        f"a search of {_trials(len(told))} chose {shown}: {best.accuracy:.1%} on the {len(part.splits.validation)} "
        f"images that chose, {judged.accuracy:.1%} on the validation images"
        + ("" if trained.fitted.better else ", by the linear classifier, which it did not beat")
    )
    found = Search(recipe, judged, len(part.splits.validation), told, min(coarse, len(told)), study)
    logger.info(found)
    return found


def _told(trial) -> Trial:
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    return Trial(shared_study.slot(trial), dict(trial.params), trial.user_attrs.get("accuracy"), trial.value, state)


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def _name(base: Recipe, space, ready: Prepared, seed: int) -> str:
    """Of the study: the same images, network, recipe and space share it."""
    prints = ready.audit.fingerprints
    base = replace(base, accumulate=1)  # it follows the memory of the machine, and changes nothing
    told = repr((base, sorted(space.items()), prints["train"], prints["validation"], ready.start.network.name, seed))
    return "recipes-" + hashlib.blake2b(told.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
