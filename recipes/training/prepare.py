"""What comes before a training: data, audit, split, network, probe, plan."""

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real

import keras
import numpy as np

from recipes.auditing.audit import Audit, audit, usable
from recipes.core.budget import Budget
from recipes.core.devices import free_memory, prepare_devices
from recipes.data.image_size import natural_size
from recipes.data.images import ImageData, Splits, joined
from recipes.data.sources import load
from recipes.data.split import stratified_split
from recipes.data.tables.splits import check_may_be_split
from recipes.errors import DataError
from recipes.networks.backbones import Backbone, resolve
from recipes.planning.lecture_table import table
from recipes.planning.plan import in_time, options
from recipes.planning.recipe import Recipe
from recipes.planning.request import Request, check_fits, needs_probe, requested_size, requested_taps
from recipes.planning.summary import Summary
from recipes.probing.features import Extractor, Features
from recipes.probing.probe import MIRRORED_BELOW, Probe, probe_backbone
from recipes.training.compare_recipes import compare
from recipes.training.input.workers import InputWorkers
from recipes.training.start import Start

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A start, the recipe that was chosen for it, what the audit met, the marked 2×2 table, the clock so far, and what
    the plan was made from."""

    start: Start
    recipe: Recipe
    audit: Audit
    table: str
    clock: "Clock"
    summary: Summary


def prepare(
    request: Request,
    splits: Splits,
    budget: Budget,
    workers: InputWorkers | None = None,
    trainings: int = 1,
) -> Prepared:
    """Do everything of `finetune` between loading the dataset and the first training. Sets all seeds.

    Args:
        request: The arguments of the job.
        splits: The dataset, as `loaded` returns it.
        budget: The time for the whole job.
        workers: The machines that will augment, if any.
        trainings: How many trainings share the time that is left after the probe.
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
    with clock("audit"):
        splits, facts = usable(splits, audit(splits, strict=request.strict))
        split_here = splits.validation is None
        if split_here:
            splits, facts = _split(splits, facts, 0.2 if validation is None else validation, seed)
    size = requested_size(recipe) or natural_size(network, splits.train)
    check_fits(network, recipe, size)
    measured, features, pace = None, None, 0.0
    if needs_probe(recipe, network):
        with clock("probe"):
            measured, features = _probe(Extractor(network, size), splits, facts, split_here, seed)
            logger.info(measured)
            pace = measured.image_seconds
    elif budget.limited:
        with clock("timing"):
            pace = Extractor(network, size).seconds_of(splits.train)
    budget = budget.share(1 / trainings)
    summary = _summary(network, splits, size, pace, budget)
    marked = table(summary, measured) if measured else ""
    if marked:
        logger.info(marked)
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


def loaded(request: Request) -> Splits:
    """Return the images as they were given, before a part is split off."""
    splits = with_validation(load("digits" if request.uses_digits else request.dataset), request.validation)
    if splits.validation is None:
        check_may_be_split(splits.table)
    return splits


def _probe(look: Extractor, splits: Splits, facts, split_here: bool, seed) -> tuple[Probe, Features]:
    """The probe of the training images, and the features of training and validation images in that order.

    What was one dataset before the split is looked at as one, in one pass.
    """
    train, validation = splits.train, splits.validation
    prints = [*facts.fingerprints["train"]], [*facts.fingerprints["validation"]]
    mirrored = len(train) + len(validation) < MIRRORED_BELOW
    if split_here:
        both = look(joined(train, validation), [*prints[0], *prints[1]], mirrored=mirrored)
    else:
        parts = [look(data, p, mirrored=mirrored) for data, p in zip((train, validation), prints, strict=True)]
        stages = [np.concatenate(pair, 1) for pair in zip(*(part.stages for part in parts), strict=True)]
        both = Features(stages, parts[0].image_seconds, parts[0].origin)
    return probe_backbone(look, train, facts, seed, both[: len(train)]), both


def _summary(network: Backbone, splits: Splits, size: int, pace: float, budget: Budget) -> Summary:
    counts = splits.train.counts
    return Summary(
        images=len(splits.train), classes=len(splits.train.class_names), size=size, pretrained=network.pretrained,
        held_out=len(splits.validation), imbalance=float(counts.max() / max(1, counts.min())),
        weights=network.network.count_params(), activations=network.activations(size), memory=free_memory(),
        image_seconds=pace,
        seconds_left=budget.left if budget.limited else None,
    )  # fmt: skip


def with_validation(splits: Splits, validation) -> Splits:
    if validation is None:
        return splits
    own = splits.validation
    if isinstance(validation, Real):
        if not 0 < validation < 1:
            raise DataError(f"validation is {validation}; expected a fraction between 0 and 1, or a dataset")
        if own is None:
            return splits
        logger.info(
            f"the {len(own)} images of its validation split join the training images, of which a part is held out"
        )
        return replace(splits, train=joined(splits.train, _renamed(own, splits.train)), validation=None)
    if own is not None:
        logger.info(f"the {len(own)} images of its own validation split are not used, for another one was given")
    given = load(validation, splits.train.class_names)
    lost = [file for file in splits.unsupported if file.split != "validation"]
    lost += [replace(file, split="validation") for file in given.unsupported if file.split == "train"]
    splits = replace(splits, unread=(*splits.unread, *given.unread), unsupported=tuple(lost))
    if len(given.given) > 1:
        logger.info(
            f"of the splits {list(given.given)} of the validation dataset the first is used; give another by itself"
        )
    return replace(splits, validation=_renamed(given.train, splits.train))


def _renamed(given: ImageData, train: ImageData) -> ImageData:
    """With other names than the training images, for the audit tells images in memory apart by these."""
    if set(given.names).isdisjoint(train.names):
        return given
    return replace(given, names=tuple(f"validation {name}" for name in given.names))


def _split(splits: Splits, facts, fraction: float, seed: int):
    prints = facts.fingerprints["train"]
    train = splits.train
    pictures = facts.pictures(train)
    inside, outside = stratified_split(train.labels, pictures, fraction, seed=seed, class_names=train.class_names)
    parts = {"train": inside, "validation": outside}
    fingerprints = facts.fingerprints | {name: tuple(prints[i] for i in where) for name, where in parts.items()}
    train, held_out = (splits.train.subset(where) for where in parts.values())
    return Splits(train, held_out, splits.test), facts.with_fingerprints(fingerprints)


class Clock:
    """Wall-clock seconds by phase."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str):
        began = time.monotonic()
        yield
        self.seconds[phase] = time.monotonic() - began
