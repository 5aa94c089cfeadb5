"""Measure the gain of each trick of a training on a dataset, by the same training with and without the trick."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import keras

from recipes import augment
from recipes.auditing.audit import Audit
from recipes.core.budget import Budget
from recipes.core.output import safe_output
from recipes.core.text import counted, described
from recipes.data.images import ImageData
from recipes.errors import RecipeError
from recipes.evaluation.calibrate import cheapest_gain, crop_gains, crop_sets, tempered
from recipes.evaluation.ledger import TELLING, Gain, compared, ledger_table
from recipes.planning.options import options
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import Recipe
from recipes.planning.request import Request
from recipes.result import Result
from recipes.studies.ensemble import cross_selected
from recipes.training.prepare import Prepared, loaded, prepare
from recipes.training.start import Start
from recipes.training.train import Trained, train

logger = logging.getLogger(__name__)

_SOUP = "soup of the runs"
_CUT = "the time limit ended its training"
_NO_TIME = "not measured: the time limit leaves no room"


@dataclass(frozen=True)
class Trick:
    """Define a trick of the training.

    Attributes:
        name: Name of the trick in the ledger.
        used: Function that returns whether a recipe uses the trick.
        on: Function that returns a recipe with the trick.
        off: Function that returns a recipe without the trick.
    """

    name: str
    used: Callable[[Recipe], bool]
    on: Callable[[Recipe], Recipe]
    off: Callable[[Recipe], Recipe]


def _field(name: str, field: str, on: float) -> Trick:
    zero = type(on)(0)
    return Trick(
        name,
        lambda r: bool(getattr(r, field)),
        lambda r: replace(r, **{field: on}),
        lambda r: replace(r, **{field: zero}),
    )


def _policy_field(name: str, field: str, on: float) -> Trick:
    def with_value(recipe: Recipe, value: float) -> Recipe:
        return replace(recipe, policy=replace(recipe.policy, **{field: value}))

    return Trick(
        name, lambda r: bool(getattr(r.policy, field)), lambda r: with_value(r, on), lambda r: with_value(r, 0.0)
    )


TRICKS = (
    Trick(
        "augmentation policy",
        lambda r: r.policy != augment.Policy.none(r.size),
        lambda r: replace(r, policy=replace(augment.Policy.light(r.size), flip=0.0 if r.mirror is False else 0.5)),
        lambda r: replace(r, policy=augment.Policy.none(r.size)),
    ),
    _policy_field("PCA colour jitter", "pca", 0.1),
    _policy_field("MixUp", "mixup", 0.2),
    _policy_field("CutMix", "cutmix", 1.0),
    _field("stochastic depth", "stochastic_depth", 0.1),
    _field("Polyak averaging", "averaging", 0.99),
    _field("label smoothing", "label_smoothing", 0.1),
    _field("snapshot ensemble", "snapshots", 5),
)


@dataclass(frozen=True)
class Ablation:
    """Hold the ledger of an ablation, and the recipe with every trick on or off as its row says."""

    rows: tuple[Gain, ...]
    recipe: Recipe

    def __repr__(self) -> str:
        kept = sum(row.kept for row in self.rows)
        return described("Ablation", counted(len(self.rows), "row"), f"{kept} kept", f"recipe {self.recipe.name!r}")

    def __str__(self) -> str:
        return ledger_table(self.rows)


@safe_output()
def ablate(
    dataset: object = None, *, backbone: object = "auto", recipe: Recipe | Adjusted | str = "auto",
    tricks: Iterable[str] | None = None,
    validation: object = None, time_limit: float | str | None = None, seed: int = 0,
) -> Ablation:  # fmt: skip
    """Measure the gain of each of `TRICKS` by training with the recipe, then once without (or with) each trick.

    All trainings start from the same weights with one seed, and are evaluated on the same validation images, on which
    no training is done. Afterwards, a soup of all runs and the lecture's crop sets are measured. The intervals are
    those of a paired bootstrap over the images; they do not include the noise between two trainings. Each training gets
    an equal share of the time limit; a row without enough time says so. For a recipe without gradient steps, only the
    crop sets are measured.

    Args:
        dataset: As `finetune` takes it.
        backbone: As `finetune` takes it.
        recipe: As `finetune` takes it.
        tricks: Names of the tricks to measure, such as ("MixUp", "Polyak averaging"); default: all.
        validation: As `finetune` takes it.
        time_limit: As `finetune` takes it.
        seed: As `finetune` takes it.

    Returns:
        The ledger, and the recipe with the tricks that had a significant gain.

    Raises:
        RecipeError: If a trick is unknown, and as in `finetune`.

    Example:
        `recipes.finetune("photos/", recipe=recipes.ablate("photos/", time_limit="1h").recipe)`
    """
    began = time.monotonic()
    request = Request(dataset, backbone, recipe, validation, time_limit, seed)
    known = {trick.name: trick for trick in TRICKS}
    names = list(tricks or known)
    if unknown := sorted(set(names) - set(known)):
        raise RecipeError(
            f"tricks contains {unknown}; expected some of {sorted(known)}", code="recipe.tricks", field="tricks",
            value=unknown,
        )  # fmt: skip
    budget = Budget.of(request.seconds, began)
    ready = prepare(request, loaded(request), budget, trainings=1 + len(names))
    if not ready.recipe.epochs:
        why = ready.recipe.reasons[-1] if budget.limited else "use recipe 'all' to measure tricks"
        logger.info(f"the recipe {ready.recipe.name!r} takes no gradient steps, so only crops are measured; {why}")
    study = _Study(ready.start, replace(ready.recipe, refit=False), seed, budget)
    for name in names if ready.recipe.epochs else ():
        study.measure(known[name])
    if len(study.runs) > 1:
        study.rows.append(study.soup_row())
    study.measure_crops()
    recommended = replace(study.recipe, refit=ready.recipe.refit)
    return Ablation(tuple(study.rows), _with_planned_epochs(recommended, recipe, ready))


def _with_planned_epochs(recipe: Recipe, requested: Recipe | Adjusted | str, ready: Prepared) -> Recipe:
    """Return `recipe` with the number of epochs that the plan gives one training without a time limit."""
    planned = options(requested, replace(ready.summary, seconds_left=None), ready.start.measured)
    epochs = next((each.epochs for each in planned if each.name == recipe.name), recipe.epochs)
    if epochs == recipe.epochs:
        return recipe
    return replace(recipe, epochs=epochs).because(
        "ablate.epochs",
        "{epochs} epochs, although the time limit of the study shortened each training to {shortened}",
        epochs=epochs, shortened=recipe.epochs,
    )  # fmt: skip


def _was_cut(trained: Trained) -> bool:
    return bool(trained.fitted and trained.fitted.cut)


def _unmeasured(name: str, note: str, *, kept: bool = False) -> Gain:
    return Gain(name, None, kept=kept, note=note)


class _Study:
    """Run the trainings of an ablation, and hold its rows and the recipe with the tricks that gained so far."""

    def __init__(self, start: Start, recipe: Recipe, seed: int, budget: Budget):
        assert start.splits.validation is not None  # `prepare` always holds out validation images
        self.start, self.seed, self.budget = start, seed, budget
        self.validation: ImageData = start.splits.validation
        self.base, self.base_seconds = self._train(recipe)
        self.original, self.recipe, self.runs = recipe, recipe, [self.base]
        accuracy = self.base.finished.validation.accuracy
        others = [row for row in self.base.finished.rows if "crops" not in row.trick]  # crops are measured last
        note = _CUT if _was_cut(self.base) else ""
        self.rows = [Gain(f"recipe {recipe.name!r}", accuracy, seconds=self.base_seconds, note=note), *others]

    def _train(self, recipe: Recipe) -> tuple[Trained, float]:
        began = time.monotonic()
        keras.utils.set_random_seed(self.seed)
        trained = train(self.start.copy(), recipe, self.seed, self.budget, (), measure_crops=False)
        return trained, time.monotonic() - began

    def measure(self, trick: Trick) -> None:
        """Train without the trick if the recipe uses it, else with the trick, and add a row."""
        used = trick.used(self.original)
        row = self._row(trick, used)
        self.rows.append(row)
        if row.kept != used:
            self.recipe = trick.on(self.recipe) if row.kept else trick.off(self.recipe)

    def _row(self, trick: Trick, used: bool) -> Gain:
        if not self.budget.allows(self.base_seconds):
            return _unmeasured(trick.name, _NO_TIME, kept=used)
        try:
            other = trick.off(self.original) if used else trick.on(self.original)
        except RecipeError as error:
            return _unmeasured(trick.name, f"not measured: {error}", kept=used)
        trained, spent = self._train(other)
        accuracy = f"{trained.finished.validation.accuracy:.1%}"
        logger.info(f"trained {'without' if used else 'with'} {trick.name}: {accuracy}, {spent:.1f} s")
        if _was_cut(trained):
            return _unmeasured(trick.name, f"not measured: {_CUT}", kept=used)
        if trick.used(trained.recipe) == used:  # the training reported why the trick could not change
            known = {reason.code for reason in self.base.recipe.decisions}
            reasons = "; ".join(str(reason) for reason in trained.recipe.decisions if reason.code not in known)
            return _unmeasured(trick.name, f"not measured: {reasons}", kept=used)
        self.runs.append(trained)
        before, after = self.base.finished.probabilities, trained.finished.probabilities
        without, with_it = (after, before) if used else (before, after)
        row = compared(trick.name, without, with_it, self.validation.labels)
        extra = (self.base_seconds - spent) if used else (spent - self.base_seconds)
        if len(self.validation) < TELLING:
            row = replace(
                row, kept=used, note=f"{len(self.validation)} images are too few to decide, so the recipe is unchanged"
            )
        return replace(row, seconds=extra, note=f"{'in' if used else 'not in'} the recipe; {row.note}")

    def soup_row(self) -> Gain:
        """Return the row of the greedy soup of all runs whose weights have the same shapes as the first run's."""
        shapes = [tuple(w.shape) for w in self.base.model.weights]
        alike = [run for run in self.runs if [tuple(w.shape) for w in run.model.weights] == shapes]
        if len(alike) < 2:
            return _unmeasured(_SOUP, "not measured: no two runs have weights of the same shapes")
        if not self.base.recipe.warm_start:
            return _unmeasured(_SOUP, "not measured: weights of independent random starts have no meaningful mean")
        passes = 2 * len(alike)  # each half of the images evaluates each run alone, then each soup
        if not self.start.time_for(passes, self.budget):
            return _unmeasured(_SOUP, _NO_TIME)
        labels = self.validation.labels
        probabilities = cross_selected([self._result(run) for run in alike], self.validation)
        single, mixed = (tempered(p, labels) for p in (self.base.finished.probabilities, probabilities))
        row = compared(_SOUP, single, mixed, labels)
        return replace(row, seconds=self.base_seconds * (len(alike) - 1))

    def measure_crops(self) -> None:
        """Add the rows of the lecture's crop sets, and set the recipe's crops to the cheapest set that gains."""
        alike = self.start.mirrors_alike
        passes = [crops * len(scales or (1,)) for crops, scales in crop_sets(self.base.recipe, alike)]
        if not self.start.time_for(sum(passes), self.budget):
            self.rows.append(_unmeasured(f"{', '.join(map(str, passes))} crops", _NO_TIME))
            return
        single = self.base.finished.probabilities
        measured = crop_gains(self.base.model, self.validation, self.base.recipe, single, alike)
        self.rows += [each.row for each in measured]
        crops, scales = cheapest_gain(measured)
        self.recipe = replace(self.recipe, crops=crops, scales=scales)

    def _result(self, trained: Trained) -> Result:
        return Result(
            model=trained.model, class_names=list(self.start.splits.train.class_names), recipe=trained.recipe,
            history={}, audit=Audit((), {}), backbone=self.start.network.name,
        )  # fmt: skip
