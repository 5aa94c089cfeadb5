"""The lecture's 2 × 2 table as a pure function: amount of data × similarity to ImageNet → recipe."""

from dataclasses import replace

from recipes.auditing.rules import IMBALANCED
from recipes.errors import RecipeError
from recipes.planning.evidence import ProbeEvidence, mirrors_gain, mirrors_keep_class, similar, uncertain
from recipes.planning.limits import in_memory, in_time
from recipes.planning.ready_made import TRAINED, explanations, finetune_all, finetune_few, from_scratch, linear_probe
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe
from recipes.planning.summary import Summary

CHECKABLE = 30  # held-out images below which a gain of finetuning cannot be measured
TRAINABLE = 400  # training images below which data similar to ImageNet keeps the linear classifier
SOLVED = 0.98  # accuracy of the linear classifier above which finetuning has nothing to gain
LARGE = 5_000_000  # weights above which a network is regularised by stochastic depth
WHOLE = 0.6  # smallest area of a crop, as a share of the image, if mirror images lose their class


def plan(summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return the recipe for a dataset, read off the lecture's 2 × 2 table and the probe.

    200 images per class and more are a lot of data. Data is similar to ImageNet if the last stage, the one most
    specialised on ImageNet, separates the classes best and nearly fully. Similar data with fewer than 400 images keeps
    the linear classifier. Otherwise all stages are trained on different data and the deepest stages on similar data,
    and `finetune` keeps the result or the linear classifier, depending on the held-out images. If these are too few to
    decide, or if nothing is left to gain, only the linear classifier is fitted.

    Args:
        summary: Facts about the dataset, the network and the machine.
        probe: The probe of the training images; None if the backbone carries no trained weights.

    Returns:
        The recipe, with a reason for every decision.

    Raises:
        RecipeError: If there is no probe of trained weights.
    """
    if not summary.pretrained:
        scratch = from_scratch(summary.size, summary.images)
        return fitted(scratch.because("plan.no_weights", "the backbone carries no trained weights"), summary)
    if probe is None:
        raise RecipeError("The plan for trained weights needs a probe, got None.", code="plan.no_probe")
    stop = _not_worth_training(summary, probe)
    if stop:
        linear = linear_probe(summary.size).with_reasons(*_findings(summary, probe), stop)
        return fitted(measured(linear, probe), summary, probe)
    return _trained("few" if similar(probe) else "all", summary, probe)


def candidates(summary: Summary, probe: ProbeEvidence | None) -> tuple[Recipe, ...]:
    """Return `plan` and, if its evidence is uncertain, the nearest other recipe, for `compare` to decide."""
    chosen = plan(summary, probe)
    if probe is None or chosen.name not in ("few", "all") or not uncertain(probe):
        return (chosen,)
    return comparable(chosen, _trained("all" if chosen.name == "few" else "few", summary, probe))


def comparable(chosen: Recipe, *others: Recipe) -> tuple[Recipe, ...]:
    """Return all recipes, or the first one if the time or the user leaves one without gradient steps."""
    return (chosen, *others) if all(each.epochs for each in (chosen, *others)) else (chosen,)


def _trained(name: str, summary: Summary, probe: ProbeEvidence) -> Recipe:
    make, stages = {"few": (finetune_few, "the deepest stages"), "all": (finetune_all, "all stages")}[name]
    recipe = make(summary.size, summary.images).with_reasons(*_findings(summary, probe))
    recipe = recipe.because(TRAINED, "{stages} are trained, with the linear classifier as the baseline", stages=stages)
    return fitted(measured(recipe, probe), summary, probe)


def _findings(summary: Summary, probe: ProbeEvidence) -> tuple[Reason, Reason]:
    last, head = probe.last, probe.head
    accuracies = "a linear classifier on the frozen network reaches {last:.1%} on its last stage"
    values = {"last": float(last.accuracy), "similar": similar(probe)}
    if head is not last:
        accuracies += " and {best:.1%} on {stage}"
        values |= {"best": float(head.accuracy), "stage": head.name}
    verdict = "is similar to" if similar(probe) else "differs from"
    amount = "a lot of" if summary.a_lot else "little"
    return (
        Reason("plan.similarity", f"{accuracies} (cross-validated): the data {verdict} ImageNet", values),
        Reason(
            "plan.amount", f"{{per_class}} images per class is {amount} data", {"per_class": int(summary.per_class)}
        ),
    )


def _not_worth_training(summary: Summary, probe: ProbeEvidence) -> Reason | None:
    """Return the reason why only the linear classifier is fitted, or None."""
    if summary.held_out is not None and summary.held_out < CHECKABLE:
        return Reason(
            "plan.few_held_out",
            "{held_out} held-out images are too few to measure a gain of finetuning, so only the linear classifier is "
            "fitted; recipe='all' trains anyway",
            {"held_out": summary.held_out},
        )
    if similar(probe) and summary.images < TRAINABLE:
        return Reason(
            "plan.few_images",
            "{images} images are too few to improve a network that already suits them, so only the linear classifier "
            "is fitted; recipe='few' trains anyway",
            {"images": summary.images},
        )
    if probe.head.accuracy >= SOLVED:
        return Reason("plan.solved", "finetuning has nothing left to gain, so only the linear classifier is fitted")
    return None


def measured(recipe: Recipe, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the stages to classify from and the use of mirror images that the probe suggests."""
    if probe is None:
        return recipe
    if probe.head is not probe.last:
        # A training reads all stages: from an earlier one alone it could not move those behind it.
        taps = probe.stages[-1].taps if recipe.epochs else probe.head.taps
        recipe = replace(recipe, taps=taps).because(
            "plan.stages",
            "{stage} predicts better than the last stage alone (cross-validated negative log-likelihood {nll:.3f} "
            "against {last_nll:.3f}): the classifier reads {reads}",
            stage=probe.head.name, nll=float(probe.head.nll), last_nll=float(probe.last.nll),
            reads="all stages" if recipe.epochs else probe.head.name,
        )  # fmt: skip
    if not mirrors_keep_class(probe):
        policy = replace(recipe.policy, flip=0.0, area=recipe.policy.area and (WHOLE, 1.0))
        return replace(recipe, policy=policy, mirror=False).because(
            "plan.no_mirrors",
            "a linear classifier is right on {straight:.0%} of the images but on {mirrored:.0%} of their mirror "
            "images: mirror images and crops of small parts are not drawn, because the images resemble signs more than "
            "views",
            straight=float(probe.mirrors.straight), mirrored=float(probe.mirrors.mirrored),
        )  # fmt: skip
    if recipe.epochs:
        return recipe
    recipe = replace(recipe, mirror=mirrors_gain(probe))
    if not recipe.mirror:
        return recipe
    gain, error = probe.head.mirror_gain
    return recipe.because(
        "plan.mirrors",
        "averaging over an image and its mirror image gains {gain:.3f} ± {error:.3f} nats (cross-validated), so "
        "predictions use both",
        gain=float(gain), error=float(error),
    )  # fmt: skip


def fitted(recipe: Recipe, summary: Summary, probe: ProbeEvidence | None = None) -> Recipe:
    """Return `recipe` fitted to the imbalance of the classes, the network, the memory and the remaining time."""
    if summary.imbalance >= IMBALANCED:
        recipe = replace(recipe, balanced=True).because(
            "plan.balanced",
            "the largest class has {imbalance:.1f} times the images of the smallest, so every class has the same "
            "weight",
            imbalance=float(summary.imbalance),
        )
    if not recipe.epochs:
        return recipe
    if recipe.refit and summary.a_lot:
        recipe = replace(recipe, refit=False).because(
            "plan.no_refit",
            "with a lot of data a fifth more would not repay a second training: the validation images stay held out",
        )
    if recipe.unfreeze == -1 and recipe.warm_start and summary.weights >= LARGE:
        recipe = replace(recipe, stochastic_depth=0.1).because(
            "plan.stochastic_depth",
            "{millions:.0f} million weights are trained, so stochastic depth is applied to residual branches, if there "
            "are any",
            millions=summary.weights / 1e6,
        )
    return in_time(in_memory(recipe.with_reasons(*explanations(recipe)), summary), summary, probe)
