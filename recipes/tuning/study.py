"""Share an Optuna study among processes and hosts, so that no trial is lost and none is run twice.

Optuna's heartbeat detects trials whose process has died (`fail_stale_trials`). This module restarts and counts trials
itself, because Optuna's callbacks would lose three guarantees:

- `MaxTrialsCallback` counts finished trials after each one, so P processes would train up to P − 1 trials too many.
- `RetryHeartbeatStaleTrialCallback` (the successor of `RetryFailedTrialCallback`, which is deprecated) runs for stale
  trials only. A trial stopped by Ctrl-C fails at once and is not retried. A trial is also not retried if the process
  that marks it as failed dies before it runs the callback.
- A trial whose process dies before its first heartbeat never becomes stale, so other processes would wait for it
forever.
"""

import logging
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from recipes.core.budget import Budget
from recipes.errors import RecipeError, TrainingError

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

Objective = Callable[["optuna.Trial", int], float]  # arguments: the trial and its slot

_HEARTBEAT = 20  # seconds; a trial whose process is silent for three of them is restarted by another process
PRUNERS = ("median", "hyperband", None)
_SLOT, _SURPLUS, _DIVERGED = "slot", "surplus", "diverged"  # user attributes of the trials in the storage


class Surplus(Exception):
    """Report that another Optuna trial has filled this trial's slot, or is filling it."""


def open_storage(storage: str | None) -> "optuna.storages.RDBStorage | None":
    """Open Optuna's storage at an address; return None for None, which keeps a study in memory.

    Raises:
        RecipeError: If the storage cannot be opened.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failed trials are logged below, without a traceback
    if storage is None:
        return None
    options = {"connect_args": {"timeout": 60}} if str(storage).startswith("sqlite") else None
    try:
        with warnings.catch_warnings():  # heartbeats are experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(
                storage, heartbeat_interval=_HEARTBEAT, grace_period=3 * _HEARTBEAT, engine_kwargs=options
            )
    except Exception as error:  # SQLAlchemy, a database driver or a missing driver may raise anything
        raise RecipeError(
            f"storage {storage!r} cannot be opened ({type(error).__name__}: {error}); expected the address of a "
            "database, such as 'sqlite:///search.db'",
            code="recipe.storage", field="storage", value=storage,
        ) from error  # fmt: skip


def create_study(
    storage: "optuna.storages.RDBStorage | None", name: str, sampler: str, trials: int, seed: int,
    pruner: str | None = "median",
) -> "optuna.Study":  # fmt: skip
    """Open or create the study of that name, and queue a trial for each requested trial that is not done.

    Queued trials wait in the storage. A process takes a trial by changing its state from waiting to running, which the
    storage allows only one process to do.

    Args:
        storage: As `open_storage` returns it.
        name: Name of the study; an existing study of that name is continued.
        sampler: "tpe" or "random".
        trials: Number of requested trials of all processes together.
        seed: Seed of the sampler for a study in memory. With a storage, the sampler is not seeded, because processes
            must draw different values.
        pruner: One of `PRUNERS`.
    """
    import optuna

    sampler_seed = None if storage else seed
    if sampler == "random":
        chosen = optuna.samplers.RandomSampler(sampler_seed)
    else:
        chosen = optuna.samplers.TPESampler(n_startup_trials=coarse_count(trials), multivariate=True, seed=sampler_seed)
    study = optuna.create_study(
        storage=storage, study_name=name, sampler=chosen, direction="minimize", load_if_exists=True,
        pruner=_pruner(pruner, trials),
    )  # fmt: skip
    _queue(study, trials)
    return study


def _pruner(name: str | None, trials: int) -> "optuna.pruners.BasePruner":
    import optuna

    if name is None:
        return optuna.pruners.NopPruner()
    if name == "hyperband":  # the pruner reads the number of epochs from the first trial that ends
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3)
    return optuna.pruners.MedianPruner(n_startup_trials=min(5, coarse_count(trials)), n_warmup_steps=2)


def coarse_count(trials: int) -> int:
    """Return the number of trials that are drawn from the whole space before the search narrows."""
    return max(1, trials // 3)


def _queue(study: "optuna.Study", trials: int) -> None:
    """Queue a trial for each empty slot; a stopped trial is queued with its previous values."""
    from optuna.trial import TrialState

    filled, stopped = set(), {}
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.FAIL or trial.user_attrs.get(_DIVERGED):
            filled.add(_slot(trial))
        elif not trial.user_attrs.get(_SURPLUS):
            stopped[_slot(trial)] = trial.params
    for empty in sorted({*range(trials)} - filled):
        study.enqueue_trial(stopped.get(empty, {}), user_attrs={_SLOT: empty})


def _slot(trial: "optuna.Trial | optuna.trial.FrozenTrial") -> int | None:
    """Return the index of the requested trial that this Optuna trial fills; None if another program created it."""
    return trial.user_attrs.get(_SLOT)


def _claim(trial: "optuna.Trial") -> int:
    """Return the slot of a trial that begins; two processes may have queued trials for the same slot.

    Raises:
        Surplus: If another Optuna trial has filled the slot or is filling it.
    """
    from optuna.trial import TrialState

    slot = _slot(trial)
    rivals = [other for other in trial.study.get_trials(deepcopy=False) if _slot(other) == slot]
    taken = any(
        other.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (other.state == TrialState.RUNNING and other.number < trial.number)
        for other in rivals if other.number != trial.number
    )  # fmt: skip
    if slot is None or taken:
        trial.set_user_attr(_SURPLUS, True)
        raise Surplus
    return slot


def _evaluate(objective: Objective, trial: "optuna.Trial") -> float:
    slot = _claim(trial)
    try:
        return objective(trial, slot)
    except TrainingError as error:
        trial.set_user_attr(_DIVERGED, True)
        logger.warning(f"trial {slot + 1} failed: {error}")
        raise


def run_trials(study: "optuna.Study", objective: Objective, trials: int, budget: Budget) -> None:
    """Run trials until all processes' trials are done, and restart the trials of dead processes.

    A trial begins only if the budget has room for it and for the evaluation of the winner.
    """
    import optuna
    from optuna.trial import TrialState

    while True:
        _fail_dead_trials(study)
        _queue(study, trials)
        current = study.get_trials(deepcopy=False)
        complete = [trial.duration for trial in current if trial.state == TrialState.COMPLETE]
        slowest = max((duration.total_seconds() for duration in complete if duration is not None), default=0.0)
        states = {trial.state for trial in current}
        if not states & {TrialState.WAITING, TrialState.RUNNING}:
            return
        if not budget.allows(2 * slowest):
            logger.info("The time limit leaves no room for another trial.")
            return
        if TrialState.WAITING not in states:
            time.sleep(1)
            continue
        try:
            study.optimize(partial(_evaluate, objective), n_trials=1, catch=(TrainingError, Surplus))
        except optuna.exceptions.UpdateFinishedTrialError:
            logger.warning("another process restarted this trial, because this process sent no heartbeat for too long")


def _fail_dead_trials(study: "optuna.Study") -> None:
    """Mark trials as failed if their process stopped sending heartbeats or never sent one."""
    import optuna
    from optuna.trial import TrialState

    with warnings.catch_warnings():  # heartbeats are experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    latest = datetime.now() - timedelta(seconds=3 * _HEARTBEAT)
    for trial in study.get_trials(deepcopy=False):
        began = trial.datetime_start
        if trial.state == TrialState.RUNNING and not trial.params and began is not None and began < latest:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def finished_trials(study: "optuna.Study") -> dict[int, "optuna.trial.FrozenTrial"]:
    """Return the finished Optuna trial of each slot in order; for a restarted trial, the last one."""
    last = {
        slot: trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and (slot := _slot(trial)) is not None and not trial.user_attrs.get(_SURPLUS)
    }
    return dict(sorted(last.items()))
