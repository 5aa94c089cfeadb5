"""Hold what a hyperparameter search returns: its trials and its winner."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from recipes.core.card import CardTable, card
from recipes.core.text import counted, described, percent, short
from recipes.evaluation.metrics import Evaluation
from recipes.planning.recipe import Recipe

_SHOWN = 10  # maximum number of trials in the card


@dataclass(frozen=True)
class Trial:
    """Hold one training of a search.

    Attributes:
        number: Position among the requested trials, from 0. Optuna's own numbers also count trials that were restarted.
        values: The drawn values of the recipe's fields, name → value.
        accuracy: Accuracy on the selection images; None for a failed trial.
        loss: Negative log-likelihood of the selection images in nats; None for a failed trial.
        state: "complete", "pruned" (stopped early, because others were better at the same epoch) or "failed".
    """

    number: int
    values: dict[str, object]
    accuracy: float | None
    loss: float | None
    state: str

    def __repr__(self) -> str:
        accuracy = None if self.accuracy is None else f"accuracy {percent(self.accuracy)}"
        values = (f"{name}={_number(value)}" for name, value in self.values.items())
        return described("Trial", f"number={self.number}", self.state, accuracy, *values)

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    @property
    def rank(self) -> float:
        """Return the loss, or infinity for a trial without one; the lowest is the best."""
        return math.inf if self.loss is None else self.loss


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_trial(trials: Iterable[Trial]) -> Trial:
    """Return the complete trial with the lowest loss."""
    return min((trial for trial in trials if trial.complete), key=lambda trial: trial.rank)


@dataclass(frozen=True, eq=False)
class SearchRecord:
    """Hold the results of a search, which its figures and its report show.

    Attributes:
        recipe: The winner's recipe, which `finetune` takes.
        accuracy: Accuracy of the winner on the validation images, which did not select it.
        chosen_by: Number of selection images, which are training images that no trial was trained on.
        trials: All trials in their order.
        coarse: Number of first trials that were drawn from the whole space; 0 if all were.
        study: The `optuna.Study`, for Optuna's own tools.
    """

    recipe: Recipe
    accuracy: Evaluation
    chosen_by: int
    trials: tuple[Trial, ...]
    coarse: int
    study: object = field(repr=False)

    def __repr__(self) -> str:
        measured = percent(self.accuracy.accuracy, self.accuracy.interval)
        done = counted(sum(trial.complete for trial in self.trials), "complete trial")
        return described("Search", f"{done} of {len(self.trials)}", f"best recipe {self.recipe.name!r} {measured}")

    def _repr_html_(self) -> str:
        """Return the card that a notebook shows."""
        best = sorted(self.trials, key=lambda trial: trial.rank)[:_SHOWN]
        names = list(dict.fromkeys(name for trial in best for name in trial.values))
        rows = [
            (trial.number + 1, trial.state, "" if trial.accuracy is None else percent(trial.accuracy),
             *(short(_number(trial.values.get(name, ""))) for name in names))
            for trial in best
        ]  # fmt: skip
        more = len(self.trials) - len(best)
        note = f"the {_SHOWN} trials with the lowest loss; {more:,} others are not shown" if more else ""
        table = CardTable(("trial", "state", f"accuracy on {self.chosen_by} selection images", *names), rows, note)
        title = f"accuracy of the best of {trials_text(len(self.trials))} on {counted(self.accuracy.n, 'image')}"
        return card(percent(self.accuracy.accuracy, self.accuracy.interval), title, (), table)

    @property
    def best(self) -> Trial:
        """Return the complete trial with the lowest loss."""
        return best_trial(self.trials)


def trials_text(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
