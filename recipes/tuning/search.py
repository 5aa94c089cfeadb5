"""Search the fields of a Recipe with Optuna, from coarse to fine, at random instead of on a grid."""

import csv
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from recipes.core.budget import NO_LIMIT, Budget
from recipes.core.files import check_writable
from recipes.core.output import safe_output
from recipes.data.evaluation_batches import images_alone
from recipes.data.images import ImageData
from recipes.errors import RecipeError, TrainingError
from recipes.evaluation.metrics import Evaluation, score
from recipes.planning.constructor_text import constructor_text
from recipes.planning.options import options
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import save_recipe
from recipes.planning.request import Request
from recipes.probing.logistic import content_folds
from recipes.training.fit import Fitted
from recipes.training.prepare import Prepared, loaded, prepare
from recipes.training.start import Start
from recipes.training.train import Trained, train
from recipes.tuning import study as shared_study
from recipes.tuning.record import SearchRecord, Trial, best_trial, trials_text
from recipes.tuning.space import SPACE, Range, check_values, checked_space, formatted, suggest

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_FOLDS = 5  # number of folds; one holds the selection images, and the trials are trained on the others


@dataclass(frozen=True, eq=False, repr=False)
class Search(SearchRecord):
    """Hold the outcome of `search`: the winner's recipe, its accuracy, and all trials.

    See `SearchRecord` for its attributes.
    """

    def __str__(self) -> str:
        states = [trial.state for trial in self.trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
        return (
            f"{trials_text(len(states))} ({counts}); best trial {self.best.number + 1}: {formatted(self.best.values)}\n"
            f"accuracy on the {self.chosen_by} selection images: {self.best.accuracy:.1%}\n"
            f"accuracy on the validation images: {self.accuracy}\n{self.recipe.reasons[-1]}"
        )

    def save(self, directory: str | os.PathLike) -> None:
        """Write recipe.json (for `recipes finetune --recipe`), trials.csv, search.svg and report.html.

        Raises:
            OutputError: If the folder cannot be written.
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

    def figure(self) -> "Figure":
        """Return a matplotlib Figure of the importances, the trials, and the contour over two fields."""
        from recipes.tuning.figure import figure

        return figure(self)

    def report(self, path: str | os.PathLike) -> None:
        """Write one self-contained HTML page about the winner, the importances, the trials and the contour.

        Raises:
            OutputError: If `path` cannot be written.
        """
        from recipes.tuning.report import write

        write(self, path)


@safe_output()
def search(
    dataset: object = None, *, backbone: object = "auto", recipe: Recipe | Adjusted | str = "auto",
    space: Mapping[str, Range] | None = None, trials: int = 30, storage: str | None = None,
    time_limit: float | str | None = None, sampler: str = "tpe", pruner: str | None = "median",
    validation: object = None, seed: int = 0,
) -> Search:  # fmt: skip
    """Find the recipe's best hyperparameters by training it repeatedly on a part of the training images.

    The first third of the trials is drawn at random from the whole space (coarse). The others are drawn near the good
    trials by a tree-structured Parzen estimator (fine; Bergstra et al. 2011). A fifth of the training images, the
    selection images, is held out of all trials and ranks them. The winner is then evaluated on the validation images.
    The test split is not used. Each trial is logged in one line: its accuracy, its values, (i / n).

    Args:
        dataset: As `finetune` takes it.
        backbone: As `finetune` takes it.
        recipe: The recipe to vary: a Recipe with epochs, or a name. If "auto" would take no gradient steps, "all" is
            used.
        space: Field of Recipe → (low, high), (low, high, "log") or a list of values; default: learning rate, weight
            decay, layer decay, label smoothing.
        trials: Number of trials of all processes together.
        storage: None, or an Optuna storage such as "sqlite:///search.db", "postgresql://…": processes and hosts that
            call `search` with the same arguments share the trials, and a stopped search resumes. A trial whose process
            dies is restarted by another process after a minute.
        time_limit: Seconds, or "90s", "10m", "2h". A trial begins only if it and the evaluation of the winner, which
            trains it again, would end in time. The estimate is the slowest trial so far. No training is cut off, so the
            first trial, or a slower trial, may exceed the limit; the excess is logged.
        sampler: "tpe", or "random" for all trials.
        pruner: Rule that stops trials early, after an epoch. "median" stops a trial whose loss is above the median of
            the others at that epoch. "hyperband" stops all but the best third at epochs 1, 3, 9, … of brackets that
            begin at different epochs (Li et al. 2018). None or "none" stops no trial.
        validation: As `finetune` takes it.
        seed: Seed of splits, weights and augmentation; without a storage, also of the drawn values.

    Returns:
        The winner's recipe and all trials.

    Raises:
        RecipeError: If the space or an option is invalid.
        DataError: As in `finetune`.
        BackboneError: As in `finetune`.
        TrainingError: If no trial was completed.

    Example:
        `recipes.finetune("photos/", recipe=recipes.search("photos/", trials=30).recipe)`
    """
    began = time.monotonic()
    request = Request(dataset, backbone, recipe, validation, time_limit, seed)
    limits = checked_space(SPACE if space is None else space)
    pruner = None if pruner == "none" else pruner
    _check_options(trials, sampler, pruner)
    budget = Budget.of(request.seconds, began)
    opened = shared_study.open_storage(storage)
    ready = prepare(request, loaded(request), NO_LIMIT)  # the search limits the time
    base = _varied_recipe(ready, limits, recipe)
    check_values(base, limits)
    contest = _Contest(_selection_fold(ready, request.seed), base, limits, request.seed, trials)
    study = shared_study.create_study(opened, contest.name(ready), sampler, trials, request.seed, pruner)
    longest = max(end for end in limits.get("epochs", [base.epochs]) if end != "log")
    logger.info(
        f"{trials_text(trials)} of up to {longest} epochs on {len(contest.start.splits.train)} training images, "
        f"ranked by {len(contest.selection_images)} others"
    )
    shared_study.run_trials(study, contest.train_trial, trials, budget)
    found = _outcome(study, contest, ready, shared_study.coarse_count(trials) if sampler == "tpe" else 0)
    if budget.overrun:
        logger.info(f"The time limit was exceeded by {budget.overrun:.0f} s, because no training is cut off.")
    return found


def _check_options(trials: int, sampler: str, pruner: str | None) -> None:
    positive = isinstance(trials, int) and not isinstance(trials, bool) and trials > 0
    for name, value, expected, valid in (
        ("trials", trials, "a positive number", positive),
        ("sampler", sampler, "'tpe' or 'random'", sampler in ("tpe", "random")),
        ("pruner", pruner, "'median', 'hyperband' or None", pruner in shared_study.PRUNERS),
    ):
        if not valid:
            raise RecipeError(
                f"{name} is {value!r}; expected {expected}", code=f"recipe.{name}", field=name, value=value
            )


@dataclass(frozen=True, eq=False)
class _Contest:
    """Hold what all trials share: the images, the varied recipe, its space, the seed, and the number of trials."""

    start: Start
    base: Recipe
    space: dict[str, Range]
    seed: int
    trials: int

    @property
    def selection_images(self) -> ImageData:
        return _validation(self.start)

    def name(self, ready: Prepared) -> str:
        """Return the study's name, which jobs with the same images, network, recipe, space and seed share."""
        prints = [ready.audit.fingerprints[split] for split in ("train", "validation")]
        base = replace(self.base, accumulate=1)  # depends on the memory of the machine and does not change results
        rest = (sorted(self.space.items()), *prints, ready.start.network.name, self.seed)
        key = f"({constructor_text(base)[:-1]}, reasons=()), {repr(rest)[1:]}"  # unchanged since version 1
        return "recipes-" + hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()

    def train(self, recipe: Recipe, *callbacks: keras.callbacks.Callback) -> tuple[Trained, Fitted]:
        """Train a copy of the network with the trial's own seed."""
        keras.utils.set_random_seed(self.seed)
        trained = train(self.start.copy(), recipe, self.seed, NO_LIMIT, callbacks, measure_crops=False)
        assert trained.fitted is not None, "the recipe of a search always has epochs"
        return trained, trained.fitted

    def train_trial(self, trial: "optuna.Trial", slot: int) -> float:
        """Train a trial and return the loss of the selection images."""
        recipe = replace(self.base, **{name: suggest(trial, name, limits) for name, limits in self.space.items()})
        label = f"{formatted(trial.params, ': ')}, ({slot + 1} / {self.trials})"
        _, fitted = self.train(recipe, _Prune(trial, label))
        best = fitted.best  # not reverted to the linear classifier; only the winner is compared with it
        trial.set_user_attr("accuracy", best.accuracy)
        logger.info(f"val_acc: {best.accuracy:.4f}, {label}")
        return best.loss


class _Prune(keras.callbacks.Callback):
    """Report each epoch to Optuna, and stop the trial when the pruner decides so."""

    def __init__(self, trial: "optuna.Trial", label: str):
        super().__init__()
        self.trial, self.label = trial, label

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        import optuna

        assert logs is not None  # the training evaluates after every epoch
        self.trial.report(logs["val_loss"], epoch + 1)
        if self.trial.should_prune():
            self.trial.set_user_attr("accuracy", logs["val_accuracy"])
            logger.info(f"val_acc: {logs['val_accuracy']:.4f}, {self.label}: pruned after {epoch + 1} epochs")
            raise optuna.TrialPruned


def _validation(start: Start) -> ImageData:
    assert start.splits.validation is not None  # `prepare` and `fold` both hold out images
    return start.splits.validation


def _varied_recipe(ready: Prepared, space: Mapping[str, Range], requested: object) -> Recipe:
    """Return the recipe to vary, without the second training on all images, because no trial needs it."""
    recipe = ready.recipe
    if not recipe.epochs:
        instead = Adjusted("all", requested.changes) if isinstance(requested, Adjusted) else "all"
        recipe = options(instead, ready.summary, ready.start.measured)[0]
        logger.info(f"The plan {ready.recipe.name!r} takes no gradient steps, so the recipe 'all' is varied instead.")
    whole_batch = {"accumulate": 1} if "batch_size" in space else {}
    return replace(recipe, refit=False, decisions=(), **whole_batch)


def _selection_fold(ready: Prepared, seed: int) -> Start:
    """Split the training images: four fifths for training, a fifth for selection; near duplicates stay together."""
    data = ready.start.splits.train
    folds = content_folds(data.labels, ready.audit.pictures(data), folds=_FOLDS, seed=seed)
    return ready.start.fold(np.flatnonzero(folds), np.flatnonzero(folds == 0))


def _outcome(study: "optuna.Study", contest: _Contest, ready: Prepared, coarse: int) -> Search:
    """Train the winner again, evaluate it on the validation images, and return the finished search."""
    trials = tuple(_trial(slot, finished) for slot, finished in shared_study.finished_trials(study).items())
    if not trials:
        raise TrainingError(
            "the time limit is too short for a single trial; raise it, or reduce the epochs", code="training.no_trial"
        )
    if not any(trial.complete for trial in trials):
        raise TrainingError(
            f"none of {len(trials)} trials was completed; try smaller learning rates, or more time",
            code="training.no_complete_trial", trials=len(trials),
        )  # fmt: skip
    best = best_trial(trials)
    winner = replace(contest.base, **best.values)
    logger.info("Training the best trial's recipe again to evaluate it on the validation images.")
    trained, fitted = contest.train(winner)
    accuracy = _evaluated(trained, _validation(ready.start), winner.batch_size)
    count = len(contest.selection_images)
    recipe = replace(winner, refit=ready.recipe.refit).because(
        "search.winner",
        "a search of {trials} selected {values}: {selection:.1%} on the {images} selection images, {validation:.1%} on "
        f"the validation images{'' if fitted.better else ' by the linear classifier, which the training did not beat'}",
        trials=trials_text(len(trials)), values=formatted(best.values), selection=best.accuracy, images=count,
        validation=accuracy.accuracy,
    )  # fmt: skip
    found = Search(recipe, accuracy, count, trials, min(coarse, len(trials)), study)
    return found


def _evaluated(trained: Trained, data: ImageData, batch_size: int) -> Evaluation:
    images = images_alone(data, trained.recipe.evaluation_policy, batch_size)
    return score(trained.model.predict(images, verbose=0)[: len(data)], data.labels, data.class_names)


def _trial(slot: int, trial: "optuna.trial.FrozenTrial") -> Trial:
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    return Trial(slot, dict(trial.params), trial.user_attrs.get("accuracy"), trial.value, state)
