"""Do the steps before a training: data, audit, split, network, probe, plan."""

import logging
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import keras
import numpy as np

from recipes.auditing.audit import Audit, audit, usable
from recipes.core.budget import Budget
from recipes.core.devices import free_memory, prepare_devices
from recipes.core.progress import Clock
from recipes.core.text import percent
from recipes.data.image_size import natural_size
from recipes.data.images import ImageData, Splits, joined
from recipes.data.sources import load
from recipes.data.split import stratified_split
from recipes.data.tables.splits import check_may_be_split
from recipes.errors import DataError
from recipes.networks.backbones import Backbone, resolve
from recipes.planning.lecture_table import LectureTable
from recipes.planning.limits import in_time
from recipes.planning.options import options
from recipes.planning.recipe import Recipe
from recipes.planning.request import Request, check_fits, needs_probe, requested_size, requested_taps
from recipes.planning.summary import Summary
from recipes.probing.features import Extractor, Features
from recipes.probing.probe import MIRRORED_BELOW, Probe, probe_backbone
from recipes.training.compare_recipes import compare
from recipes.training.input.workers import InputWorkers
from recipes.training.start import Start

logger = logging.getLogger(__name__)

_HELD_OUT = 0.2  # default share of the training images that is held out for validation


@dataclass(frozen=True, eq=False)
class Prepared:
    """Outcome of `prepare`.

    Attributes:
        start: The network, the images and the linear classifier.
        recipe: The recipe that was chosen.
        audit: The findings of the audit.
        table: The lecture's 2×2 table with this dataset marked; None without a probe.
        clock: The duration of each step so far.
        summary: The facts on which the plan is based.
    """

    start: Start
    recipe: Recipe
    audit: Audit
    table: LectureTable | None
    clock: Clock
    summary: Summary


def prepare(
    request: Request,
    splits: Splits,
    budget: Budget,
    workers: InputWorkers | None = None,
    trainings: int = 1,
) -> Prepared:
    """Do all steps of `finetune` between loading the dataset and the first training, and set all seeds.

    Args:
        request: The arguments of the job.
        splits: The dataset, as `loaded` returns it.
        budget: Time limit of the whole job.
        workers: The input workers that augment images, if any.
        trainings: Number of trainings that share the time left after the probe.
    """
    recipe, seed, validation = request.recipe, request.seed, request.validation
    backbone = "glyphs" if request.uses_digits and request.backbone == "auto" else request.backbone
    if splits.layout is not None and not splits.layout.usual:
        logger.info(splits.layout)
    prepare_devices()
    splits = splits if workers is None else replace(splits, train=workers.checked(splits.train))
    keras.utils.set_random_seed(seed)
    network = resolve(backbone)
    clock = Clock()
    with clock("audit") as current:
        splits, facts = usable(splits, audit(splits, strict=request.options.strict))
        split_here = splits.validation is None
        if split_here:
            fraction: Any = _HELD_OUT if validation is None else validation  # `with_validation` leaves only a number
            splits, facts = _split(splits, facts, fraction, seed)
        current.note = _described(splits, facts)
    size = requested_size(recipe) or natural_size(network, splits.train)
    check_fits(network, recipe, size)
    measured, features, pace = None, None, 0.0
    if needs_probe(recipe, network):
        with clock("probe") as current:
            measured, features = _probe(Extractor(network, size), splits, facts, split_here, seed)
            logger.debug(measured)
            pace = measured.image_seconds
            current.note = f"{percent(measured.head.accuracy)} cross-validated, by {measured.head.name}"
    elif budget.limited:
        with clock("timing"):
            pace = Extractor(network, size).seconds_of(splits.train)
    budget = budget.share(1 / trainings)
    summary = _summary(network, splits, size, pace, budget)
    marked = LectureTable.of(summary, measured) if measured else None
    if marked:
        logger.debug(marked)
    start = Start(network, splits, measured, features, pace, taps_given=requested_taps(recipe) is not None)
    chosen, *rivals = options(recipe, summary, measured)
    if rivals:
        with clock("comparison"):
            chosen = compare(start, (chosen, *rivals), facts.pictures(splits.train), seed, budget)
        chosen = in_time(chosen, _summary(network, splits, size, pace, budget), measured)
        keras.utils.set_random_seed(seed)
    if not split_here:
        chosen = replace(chosen, refit=False)
    return Prepared(start, chosen, facts, marked, clock, summary)


def _described(splits: Splits, facts: Audit) -> str:
    """Return how many images of how many classes there are, and what the audit found."""
    parts = ", ".join(f"{len(data):,} {name}" for name, data in splits.given.items())
    odd = f", {len(facts.excluded):,} excluded" if facts.excluded else ""
    return f"{len(splits.train.class_names)} classes, {parts} images{odd}"


def loaded(request: Request) -> Splits:
    """Load the dataset of a request without holding out a part."""
    splits = with_validation(load("digits" if request.uses_digits else request.dataset), request.validation)
    if splits.validation is None:
        check_may_be_split(splits.table)
    return splits


def _probe(extractor: Extractor, splits: Splits, facts: Audit, split_here: bool, seed: int) -> tuple[Probe, Features]:
    """Return the probe, and the features of the training and then the validation images.

    If the two sets were one dataset before the split, their features are computed in one pass.
    """
    train, validation = splits.train, splits.validation
    assert validation is not None
    prints = [*facts.fingerprints["train"]], [*facts.fingerprints["validation"]]
    mirrored = len(train) + len(validation) < MIRRORED_BELOW
    if split_here:
        both = extractor(joined(train, validation), [*prints[0], *prints[1]], mirrored=mirrored)
    else:
        parts = [extractor(data, p, mirrored=mirrored) for data, p in zip((train, validation), prints, strict=True)]
        stages = [np.concatenate(pair, 1) for pair in zip(*(part.stages for part in parts), strict=True)]
        both = Features(stages, parts[0].image_seconds, parts[0].origin)
    return probe_backbone(extractor, train, facts, seed, both[: len(train)]), both


def _summary(network: Backbone, splits: Splits, size: int, pace: float, budget: Budget) -> Summary:
    counts = splits.train.counts
    assert splits.validation is not None
    return Summary(
        images=len(splits.train), classes=len(splits.train.class_names), size=size, pretrained=network.pretrained,
        held_out=len(splits.validation), imbalance=float(counts.max() / max(1, counts.min())),
        weights=network.network.count_params(), activations=network.activations(size), memory=free_memory(),
        image_seconds=pace,
        seconds_left=budget.left if budget.limited else None,
    )  # fmt: skip


def with_validation(splits: Splits, validation: object) -> Splits:
    """Return the splits with the requested validation images, or with None if they must still be held out.

    Args:
        splits: A dataset.
        validation: None (its own split, if any), a fraction to hold out, or another dataset.

    Raises:
        DataError: If the fraction is not between 0 and 1 (`code` "data.validation").
    """
    if validation is None:
        return splits
    own = splits.validation
    if isinstance(validation, Real):
        if not 0 < float(validation) < 1:
            raise DataError(
                f"validation is {validation}; expected a fraction between 0 and 1, or a dataset",
                code="data.validation",
                value=validation,
            )
        if own is None:
            return splits
        logger.info(
            f"The {len(own)} images of the dataset's validation split are added to its training images. A part of "
            f"the training images is then held out."
        )
        return replace(splits, train=joined(splits.train, _renamed(own, splits.train)), validation=None)
    if own is not None:
        logger.info(
            f"The {len(own)} images of the dataset's own validation split are not used, because another validation "
            f"set was given."
        )
    given = load(validation, splits.train.class_names)
    lost = [file for file in splits.unsupported if file.split != "validation"]
    lost += [replace(file, split="validation") for file in given.unsupported if file.split == "train"]
    splits = replace(splits, unread=(*splits.unread, *given.unread), unsupported=tuple(lost))
    if len(given.given) > 1:
        logger.info(
            f"The validation dataset has the splits {list(given.given)}; only the first is used. To use another one, "
            f"give its folder."
        )
    return replace(splits, validation=_renamed(given.train, splits.train))


def _renamed(given: ImageData, train: ImageData) -> ImageData:
    """Rename images so that none shares a training image's name, because the audit identifies images by name."""
    if set(given.names).isdisjoint(train.names):
        return given
    return replace(given, names=tuple(f"validation {name}" for name in given.names))


def _split(splits: Splits, facts: Audit, fraction: float, seed: int) -> tuple[Splits, Audit]:
    """Hold out a fraction of the training images as validation images."""
    prints = facts.fingerprints["train"]
    train = splits.train
    pictures = facts.pictures(train)
    inside, outside = stratified_split(train.labels, pictures, fraction, seed=seed, class_names=train.class_names)
    parts = {"train": inside, "validation": outside}
    fingerprints = facts.fingerprints | {name: tuple(prints[i] for i in where) for name, where in parts.items()}
    train, held_out = (splits.train.subset(where) for where in parts.values())
    return Splits(train, held_out, splits.test), facts.with_fingerprints(fingerprints)
