"""What each trick of a training is worth on a dataset: the same training without it, or with it, judged alike."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

import augment
from recipes.auditing.audit import Audit
from recipes.core.budget import Budget
from recipes.core.output import safe_output
from recipes.errors import RecipeError
from recipes.evaluation.calibrate import cheapest_gain, crop_gains, crop_sets, tempered
from recipes.evaluation.ledger import TELLING, Gain, compared, table
from recipes.planning.plan import options
from recipes.planning.recipe import Recipe
from recipes.planning.request import Request
from recipes.result import Result
from recipes.studies.ensemble import judged_by_halves
from recipes.training.callbacks import Quiet
from recipes.training.prepare import Prepared, loaded, prepare
from recipes.training.train import Trained, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trick:
    """A trick of the training: whether a recipe uses it, and the recipe with and without it."""

    name: str
    used: Callable[[Recipe], bool]
    on: Callable[[Recipe], Recipe]
    off: Callable[[Recipe], Recipe]


def _field(name: str, field: str, on) -> Trick:
    zero = type(on)(0)
    return Trick(
        name,
        lambda r: bool(getattr(r, field)),
        lambda r: replace(r, **{field: on}),
        lambda r: replace(r, **{field: zero}),
    )


def _policy_field(name: str, field: str, on: float) -> Trick:
    def with_value(recipe, value):
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
    """The ledger of an ablation, and the recipe with every trick as its row says."""

    rows: tuple[Gain, ...]
    recipe: Recipe

    def __str__(self) -> str:
        return table(self.rows)


@safe_output()
def ablate(
    dataset=None, *, backbone="auto", recipe="auto", tricks=None, validation=None, time_limit=None, seed: int = 0
) -> Ablation:
    """Measure what each of `TRICKS` is worth: train once by the recipe, then once without (or with) each trick.

    All trainings start alike, with one seed, and are judged on the same validation images, none of which is trained
    on; a soup of all runs and the lecture's crop sets follow. The intervals are those of a paired bootstrap over the
    images: they do not hold the noise between two trainings. Of a time limit the plan gives each training an equal
    share; rows for which it leaves no room say so.

    tricks: names of those of `TRICKS` to measure, such as ("MixUp", "Polyak averaging"); None: all.

    The other arguments are those of `finetune`. A recipe without gradient steps has no such tricks: its rows are the
    crop sets.

    Example: `recipes.finetune("photos/", recipe=recipes.ablate("photos/", time_limit="1h").recipe)`
    """
    began = time.monotonic()
    request = Request(dataset, backbone, recipe, validation, time_limit, seed)
    known = {trick.name: trick for trick in TRICKS}
    unknown = set(tricks or ()) - set(known)
    if unknown:
        raise RecipeError(f"tricks are {sorted(unknown)}; expected some of {sorted(known)}")
    budget = Budget.of(request.seconds, began)
    trainings = 1 + len(tricks or known)
    ready = prepare(request, loaded(request), budget, trainings=trainings)
    if not ready.recipe.epochs:
        why = ready.recipe.reasons[-1] if budget.limited else "'all' has tricks"
        logger.info(f"the recipe {ready.recipe.name!r} takes no gradient steps, so only crops are measured; {why}")
    study = _Study(ready.start, replace(ready.recipe, refit=False), seed, budget)
    for name in (tricks or known) if ready.recipe.epochs else ():
        study.measure(known[name])
    if len(study.runs) > 1:
        study.soup()
    study.crops()
    result = Ablation(tuple(study.rows), _in_full(replace(study.recipe, refit=ready.recipe.refit), recipe, ready))
    logger.info(result)
    return result


def _in_full(found: Recipe, asked, ready: Prepared) -> Recipe:
    """`found` with as many epochs as the plan has for one training without a time limit."""
    planned = options(asked, replace(ready.summary, seconds_left=None), ready.start.measured)
    epochs = next((each.epochs for each in planned if each.name == found.name), found.epochs)
    if epochs == found.epochs:
        return found
    return replace(found, epochs=epochs).because(
        f"{epochs} epochs, of which the time limit of the study left each of its trainings {found.epochs}"
    )


_CUT = "the time limit ended its training"


def _cut(trained: Trained) -> bool:
    return bool(trained.fitted and trained.fitted.cut)


class _Study:
    def __init__(self, start, recipe: Recipe, seed: int, budget: Budget):
        self.start, self.seed, self.budget, self.validation = start, seed, budget, start.splits.validation
        self.base, self.base_seconds = self._run(recipe)
        self.asked, self.recipe, self.runs = recipe, recipe, [self.base]
        accuracy = self.base.finished.validation.accuracy
        others = [row for row in self.base.finished.rows if "crops" not in row.trick]  # those are measured last
        note = _CUT if _cut(self.base) else ""
        self.rows = [Gain(f"recipe {recipe.name!r}", accuracy, seconds=self.base_seconds, note=note), *others]

    def _run(self, recipe: Recipe) -> tuple[Trained, float]:
        began = time.monotonic()
        keras.utils.set_random_seed(self.seed)
        quiet = [Quiet()] if recipe.epochs else []
        trained = train(self.start.copy(), recipe, self.seed, self.budget, quiet, measure_crops=False)
        return trained, time.monotonic() - began

    def measure(self, trick: Trick) -> None:
        used = trick.used(self.asked)
        if not self.budget.allows(self.base_seconds):
            self.rows.append(Gain(trick.name, None, kept=used, note="not measured: the time limit leaves no room"))
            return
        try:
            other = trick.off(self.asked) if used else trick.on(self.asked)
        except RecipeError as error:
            self.rows.append(Gain(trick.name, None, kept=used, note=f"not measured: {error}"))
            return
        trained, spent = self._run(other)
        accuracy = f"{trained.finished.validation.accuracy:.1%}"
        logger.info(f"trained {'without' if used else 'with'} {trick.name}: {accuracy}, {spent:.1f} s")
        if _cut(trained):
            self.rows.append(Gain(trick.name, None, kept=used, note=f"not measured: {_CUT}"))
            return
        if trick.used(trained.recipe) == used:
            note = f"not measured: {'; '.join(set(trained.recipe.reasons) - set(self.base.recipe.reasons))}"
            self.rows.append(Gain(trick.name, None, kept=used, note=note))
            return
        self.runs.append(trained)
        before, after = self.base.finished.probabilities, trained.finished.probabilities
        without, with_it = (after, before) if used else (before, after)
        row = compared(trick.name, without, with_it, self.validation.labels)
        more = (self.base_seconds - spent) if used else (spent - self.base_seconds)
        if len(self.validation) < TELLING:
            row = replace(row, kept=used, note=f"{len(self.validation)} images could not tell: as it was")
        note = f"{'in' if used else 'not in'} the recipe; {row.note}"
        self.rows.append(replace(row, seconds=more, note=note))
        if row.kept != used:
            self.recipe = trick.on(self.recipe) if row.kept else trick.off(self.recipe)

    def soup(self) -> None:
        """Greedy, of all runs that have weights of the base's shapes; both sides at temperatures of other images."""
        shapes = [tuple(w.shape) for w in self.base.model.weights]
        alike = [run for run in self.runs if [tuple(w.shape) for w in run.model.weights] == shapes]
        if len(alike) < 2:
            self.rows.append(
                Gain("soup of the runs", None, kept=False, note="not measured: no two runs have the same weights")
            )
            return
        if not self.base.recipe.warm_start:
            note = "not measured: weights that begin at random have no meaningful mean"
            self.rows.append(Gain("soup of the runs", None, kept=False, note=note))
            return
        looks = 2 * len(alike)  # every half: each alone, then each averaged in
        if not self.start.time_for(looks, self.budget):
            self.rows.append(Gain("soup of the runs", None, kept=False, note="not measured: the time limit"))
            return
        found = judged_by_halves([self._result(run) for run in alike], self.validation)
        labels = self.validation.labels
        single, found = (tempered(p, labels) for p in (self.base.finished.probabilities, found))
        row = compared("soup of the runs", single, found, labels)
        self.rows.append(replace(row, seconds=self.base_seconds * (len(alike) - 1)))

    def crops(self) -> None:
        alike = self.start.mirrors_alike
        looks = [crops * len(scales or (1,)) for crops, scales in crop_sets(self.base.recipe, alike)]
        if not self.start.time_for(sum(looks), self.budget):
            name = f"{', '.join(map(str, looks))} crops"
            self.rows.append(Gain(name, None, kept=False, note="not measured: the time limit"))
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
