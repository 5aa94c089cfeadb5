"""An optuna study that several processes and hosts share: no trial is lost, none is run twice."""

import time
import warnings
from collections.abc import Callable

from recipes.errors import TrainingError

_HEARTBEAT = 20  # seconds; a trial whose process has been silent for three of them is given to another
_SLOT, _SURPLUS = "slot", "surplus"


def study(storage: str | None, name: str, sampler: str, trials: int, seed: int):
    """The optuna study of that name, with a waiting trial for every one that is to be done.

    Trials wait in the storage before they are run: a process takes one by turning it from waiting to running, which the
    storage lets only one do.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place, coarse = storage, max(1, trials // 3)
    if storage:
        again = optuna.storages.RetryFailedTrialCallback(max_retry=3)
        options = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else None
        place = optuna.storages.RDBStorage(
            storage, heartbeat_interval=_HEARTBEAT, grace_period=3 * _HEARTBEAT, heartbeat_stale_trial_callback=again,
            engine_kwargs=options,
        )  # fmt: skip
        seed = None  # or two processes would draw the same values
    if sampler == "random":
        drawn = optuna.samplers.RandomSampler(seed)
    else:
        drawn = optuna.samplers.TPESampler(n_startup_trials=coarse, multivariate=True, seed=seed)
    found = optuna.create_study(
        storage=place, study_name=name, sampler=drawn, direction="minimize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=min(5, coarse), n_warmup_steps=1),
    )  # fmt: skip
    queued = {trial.user_attrs[_SLOT] for trial in found.get_trials(deepcopy=False) if _SLOT in trial.user_attrs}
    for slot in range(len(queued), trials):
        found.enqueue_trial({}, user_attrs={_SLOT: slot})
    return found


def claimed(trial) -> int | None:
    """Which of the trials that are to be done an optuna trial is; None where another one has done it or is at it: two
    processes that begin together may both have queued it."""
    from optuna.trial import TrialState

    slot = trial.user_attrs.get(_SLOT)
    rivals = [other for other in trial.study.get_trials(deepcopy=False) if other.user_attrs.get(_SLOT) == slot]
    done = any(
        (other.state in (TrialState.COMPLETE, TrialState.PRUNED) and not other.user_attrs.get(_SURPLUS))
        or (other.state == TrialState.RUNNING and other.number < trial.number)
        for other in rivals if other.number != trial.number
    )  # fmt: skip
    if slot is None or done:
        trial.set_user_attr(_SURPLUS, True)
        return None
    return slot


def run(found, objective: Callable, deadline: float | None) -> None:
    """Trials until none waits, and those of other processes are over or have been taken on from them."""
    import optuna
    from optuna.storages import fail_stale_trials
    from optuna.trial import TrialState

    longest = 0.0
    while True:
        with warnings.catch_warnings():  # that it is experimental, of which no user can make anything
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            fail_stale_trials(found)
        states = [trial.state for trial in found.get_trials(deepcopy=False)]
        if TrialState.WAITING in states:
            if deadline is not None and time.monotonic() + 2 * longest > deadline:
                print("the time limit leaves no room for another trial")
                return
            began = time.monotonic()
            found.optimize(objective, n_trials=1, catch=(TrainingError,))
            longest = max(longest, time.monotonic() - began)
        elif TrialState.RUNNING in states and (deadline is None or time.monotonic() < deadline):
            time.sleep(1)
        else:
            return


def finished(found) -> list:
    """The last finished optuna trial of every one that was to be done: a trial whose process died was run again."""
    last = {}
    for trial in found.get_trials(deepcopy=False):
        if trial.state.is_finished() and _SLOT in trial.user_attrs and not trial.user_attrs.get(_SURPLUS):
            last[trial.user_attrs[_SLOT]] = trial
    return [last[slot] for slot in sorted(last)]
