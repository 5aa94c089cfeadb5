"""An optuna study that several processes and hosts share: no trial is lost, none is run twice."""

import logging
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta

from recipes.core.budget import Budget
from recipes.errors import RecipeError, TrainingError

logger = logging.getLogger(__name__)

_HEARTBEAT = 20  # seconds; a trial whose process has been silent for three of them is given to another
PRUNERS = ("median", "hyperband", None)
_SLOT, _SURPLUS, _DIVERGED = "slot", "surplus", "diverged"


class Surplus(Exception):
    """A trial that another one has done, or is doing."""


def opened(storage: str | None):
    """optuna's storage; None: memory.

    Raises: RecipeError for one that cannot be opened.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failed trials are told here in words
    if storage is None:
        return None
    options = {"connect_args": {"timeout": 60}} if str(storage).startswith("sqlite") else None
    try:
        with warnings.catch_warnings():  # that heartbeats are experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(
                storage, heartbeat_interval=_HEARTBEAT, grace_period=3 * _HEARTBEAT, engine_kwargs=options
            )
    except Exception as error:  # of SQLAlchemy, of a driver, of its absence
        raise RecipeError(
            f"storage {storage!r} cannot be opened ({type(error).__name__}: {error}); expected a database's address, "
            "such as 'sqlite:///search.db'"
        ) from error


def study(storage, name: str, sampler: str, trials: int, seed: int, pruner: str | None = "median"):
    """The optuna study of that name in an `opened` storage, with a waiting trial for every one that is to be done.

    Trials wait in the storage before they are run: a process takes one by turning it from waiting to running, which the
    storage lets only one do.
    """
    import optuna

    seed = None if storage else seed  # or two processes would draw the same values
    if sampler == "random":
        drawn = optuna.samplers.RandomSampler(seed)
    else:
        drawn = optuna.samplers.TPESampler(n_startup_trials=coarse(trials), multivariate=True, seed=seed)
    found = optuna.create_study(
        storage=storage, study_name=name, sampler=drawn, direction="minimize", load_if_exists=True,
        pruner=_pruner(pruner, trials),
    )  # fmt: skip
    _queue(found, trials)
    return found


def _pruner(name: str | None, trials: int):
    import optuna

    if name is None:
        return optuna.pruners.NopPruner()
    if name == "hyperband":  # how many epochs there are it reads off the first trial that ends
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3)
    return optuna.pruners.MedianPruner(n_startup_trials=min(5, coarse(trials)), n_warmup_steps=2)


def coarse(trials: int) -> int:
    """How many trials are drawn from the whole space, before the good ones are looked around."""
    return max(1, trials // 3)


def _queue(found, trials: int) -> None:
    """A waiting trial for each that is not done, under way or waiting: one that was stopped waits again, as it was."""
    from optuna.trial import TrialState

    held, stopped = set(), {}
    for trial in found.get_trials(deepcopy=False):
        if trial.state != TrialState.FAIL or trial.user_attrs.get(_DIVERGED):
            held.add(slot(trial))
        elif not trial.user_attrs.get(_SURPLUS):
            stopped[slot(trial)] = trial.params
    for free in sorted({*range(trials)} - held):
        found.enqueue_trial(stopped.get(free, {}), user_attrs={_SLOT: free})


def slot(trial) -> int | None:
    """Which of the trials that are to be done an optuna trial is, from 0."""
    return trial.user_attrs.get(_SLOT)


def claimed(trial) -> int:
    """The `slot` of a trial that begins.

    Raises: Surplus where another one has done it or is at it: two processes may both have queued it.
    """
    from optuna.trial import TrialState

    mine = slot(trial)
    rivals = [other for other in trial.study.get_trials(deepcopy=False) if slot(other) == mine]
    done = any(
        other.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (other.state == TrialState.RUNNING and other.number < trial.number)
        for other in rivals if other.number != trial.number
    )  # fmt: skip
    if mine is None or done:
        trial.set_user_attr(_SURPLUS, True)
        raise Surplus
    return mine


def run(found, objective: Callable, trials: int, budget: Budget) -> None:
    """Trials until all are done, those of other processes too; what these leave undone is taken on from them.

    With a time limit, as long as there is room for one more trial and the winner's judging.
    """
    import optuna
    from optuna.trial import TrialState

    def tried(trial):
        try:
            return objective(trial)
        except TrainingError as error:
            trial.set_user_attr(_DIVERGED, True)
            logger.warning(f"trial {slot(trial) + 1} failed: {error}")
            raise

    while True:
        _give_up_stale(found)
        _queue(found, trials)
        told = found.get_trials(deepcopy=False)
        spans = [trial.duration.total_seconds() for trial in told if trial.state == TrialState.COMPLETE]
        late = not budget.allows(2 * max(spans, default=0.0))
        states = {trial.state for trial in told}
        if not states & {TrialState.WAITING, TrialState.RUNNING}:
            return
        if late:
            logger.info("the time limit leaves no room for another trial")
            return
        if TrialState.WAITING not in states:
            time.sleep(1)
            continue
        try:
            found.optimize(tried, n_trials=1, catch=(TrainingError, Surplus))
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning("this process was silent for so long that another one has taken its trial on")


def _give_up_stale(found) -> None:
    """Trials whose process is silent fail, and so do those that none has come to begin."""
    import optuna
    from optuna.trial import TrialState

    with warnings.catch_warnings():  # that it is experimental, of which no user can make anything
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(found)
    long_ago = datetime.now() - timedelta(seconds=3 * _HEARTBEAT)
    for trial in found.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING and not trial.params and trial.datetime_start < long_ago:
            found.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def finished(found) -> list:
    """One finished optuna trial for each that was to be done: of one that was stopped, the one that took its place."""
    last = {}
    for trial in found.get_trials(deepcopy=False):
        if trial.state.is_finished() and slot(trial) is not None and not trial.user_attrs.get(_SURPLUS):
            last[slot(trial)] = trial
    return [last[place] for place in sorted(last)]
