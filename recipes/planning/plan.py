"""Choose a recipe by the lecture's 2 × 2 table: amount of data × similarity to ImageNet → recipe."""

from dataclasses import replace

from recipes.auditing.rules import IMBALANCED
from recipes.errors import RecipeError
from recipes.planning.evidence import ProbeEvidence, mirrors_gain, mirrors_keep_class, similar, uncertain
from recipes.planning.limits import in_memory, in_time
from recipes.planning.ready_made import TRAINED, explanations, finetune_all, finetune_few, from_scratch, linear_probe
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe
from recipes.planning.summary import Summary

CHECKABLE = 30  # smallest number of held-out images that can measure a gain of finetuning
TRAINABLE = 400  # data similar to ImageNet with fewer training images keeps the linear classifier
SOLVED = 0.98  # finetuning has nothing to gain above this accuracy of the linear classifier
LARGE = 5_000_000  # networks with more weights are regularised by stochastic depth
WHOLE = 0.6  # smallest share of the image that a crop covers if mirror images lose their class


def plan(summary: Summary, probe: ProbeEvidence | None) -> Recipe:
    """Return the recipe for a dataset by the lecture's 2 × 2 table and the probe.

    At least 200 images per class are a lot of data. Data is similar to ImageNet if the last stage of the network
    separates the classes best and nearly completely. Similar data with fewer than 400 images keeps the linear
    classifier. Otherwise all stages are trained on different data, and the deepest stages on similar data. `finetune`
    then keeps the finetuned network or the linear classifier, depending on the held-out images. Only the linear
    classifier is fitted if the held-out images are too few to decide, or if finetuning has nothing to gain.

    Args:
        summary: Facts about the dataset, the network and the machine.
        probe: The probe of the training images; None if the weights of the backbone are random.

    Returns:
        The recipe, with a reason for every decision.

    Raises:
        RecipeError: If the weights of the backbone are trained but `probe` is None.
    """
    if not summary.pretrained:
        scratch = from_scratch(summary.size, summary.images)
        return fitted(
            scratch.because("plan.no_weights", "the backbone has random weights, so all weights are trained"), summary
        )
    if probe is None:
        raise RecipeError(
            "`probe` must be the probe of the training images if the backbone has trained weights, got None.",
            code="plan.no_probe",
        )
    stop = _not_worth_training(summary, probe)
    if stop:
        linear = linear_probe(summary.size).with_reasons(*_findings(summary, probe), stop)
        return fitted(measured(linear, probe), summary, probe)
    return _trained("few" if similar(probe) else "all", summary, probe)


def candidates(summary: Summary, probe: ProbeEvidence | None) -> tuple[Recipe, ...]:
    """Return the recipe of `plan` and, if its evidence is uncertain, the nearest alternative for `compare`."""
    chosen = plan(summary, probe)
    if probe is None or chosen.name not in ("few", "all") or not uncertain(probe):
        return (chosen,)
    return comparable(chosen, _trained("all" if chosen.name == "few" else "few", summary, probe))


def comparable(chosen: Recipe, *others: Recipe) -> tuple[Recipe, ...]:
    """Return all recipes, or only the first recipe if one of them takes no gradient steps."""
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
    """Return the reason to fit only the linear classifier, or None."""
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
        return Reason(
            "plan.solved",
            "the linear classifier already reaches {accuracy:.1%} (cross-validated), so finetuning is skipped; "
            "recipe='all' trains anyway",
            {"accuracy": probe.head.accuracy},
        )
    return None


def measured(recipe: Recipe, probe: ProbeEvidence | None) -> Recipe:
    """Return `recipe` with the stages to classify from, and the use of mirror images, that the probe suggests."""
    if probe is None:
        return recipe
    if probe.head is not probe.last:
        # A training reads all stages, because a classifier on an earlier stage alone could not train later stages.
        taps = probe.stages[-1].taps if recipe.epochs else probe.head.taps
        recipe = replace(recipe, taps=taps).because(
            "plan.stages",
            "{stage} predicts better than the last stage alone (cross-validated negative log-likelihood {nll:.3f} "
            "against {last_nll:.3f}), so the classifier reads {reads}",
            stage=probe.head.name, nll=float(probe.head.nll), last_nll=float(probe.last.nll),
            reads="all stages" if recipe.epochs else probe.head.name,
        )  # fmt: skip
    if not mirrors_keep_class(probe):
        policy = replace(recipe.policy, flip=0.0, area=recipe.policy.area and (WHOLE, 1.0))
        return replace(recipe, policy=policy, mirror=False).because(
            "plan.no_mirrors",
            "a linear classifier is right on {straight:.0%} of the images but on {mirrored:.0%} of their mirror "
            "images, so the training draws no mirror images and no crops of small parts",
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
    """Return `recipe` adapted to the imbalance of the classes, the network, the memory and the remaining time."""
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
            "with a lot of data, a fifth more images would not be worth a second training, so the validation "
            "images stay held out",
        )
    if recipe.unfreeze == -1 and recipe.warm_start and summary.weights >= LARGE:
        recipe = replace(recipe, stochastic_depth=0.1).because(
            "plan.stochastic_depth",
            "{millions:.0f} million weights are trained, so stochastic depth is applied to any residual branches",
            millions=summary.weights / 1e6,
        )
    return in_time(in_memory(recipe.with_reasons(*explanations(recipe)), summary), summary, probe)
