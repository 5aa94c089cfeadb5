"""What the frozen backbone already knows: a linear classifier on every stage's features, chosen by cross-validation."""

import logging
import time
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from recipes.auditing.audit import Audit, audit, usable
from recipes.core.output import safe_output
from recipes.data.image_size import natural_size
from recipes.data.images import ImageData
from recipes.data.sources import load
from recipes.evaluation.metrics import wilson_interval
from recipes.networks.backbones import resolve
from recipes.probing.features import Extractor, Features
from recipes.probing.logistic import (
    L2_PATH,
    SMALL,
    Linear,
    channel_scale,
    content_folds,
    cross_entropy,
    fit_path,
    held_out_logits,
)
from recipes.probing.logme import logme

logger = logging.getLogger(__name__)

MIRRORED_BELOW = 10_000  # images; from there on mirror images double the cost and add nothing
_MIRROR_SAMPLE = 2_000


@dataclass(frozen=True, eq=False)
class StageResult:
    """A linear classifier on one stage (or on all of them, concatenated), judged by cross-validation.

    name, features: of the stage, and how many channels it has.
    accuracy:       cross-validated, with its 95 % interval.
    nll:            cross-validated negative log-likelihood, mean in nats.
    seconds:        that the fits took.
    logme:          the cheap ranking, see `recipes.probing.logme`.
    taps:           positions of the stages that it reads.
    classifier:     fitted on all training images.
    out_of_fold:    (n, classes) probabilities by classifiers that had not seen the image.
    losses:         (n,) negative log-likelihood of each image, out of fold.
    mirror_gain:    mean and standard error, in nats, of what averaging over the image and its mirror image takes off,
                    against one of them chosen at random.
    """

    name: str
    features: int
    accuracy: float
    interval: tuple[float, float]
    seconds: float
    nll: float
    logme: float
    taps: tuple[int, ...]
    classifier: Linear = field(repr=False)
    out_of_fold: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    mirror_gain: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class MirrorTest:
    """Cross-validated accuracy on images and on their mirror images, of a classifier that has seen no mirror image."""

    straight: float
    mirrored: float
    alike: bool


@dataclass(frozen=True, eq=False)
class Probe:
    """One `StageResult` per stage, shallow to deep, then one of all stages concatenated.

    best:    the highest accuracy.
    last:    the network's own end.
    head:    where to classify from: the lowest cross-validated likelihood loss, unless the network's own end is as good
             to within the noise (one standard error of the paired difference).
    mirrors: whether a mirror image has the class of its original; measured, see `mirror_test`.
    image_seconds: per image and pass of the network, when the features were made.
    origin:  where the features are kept.
    """

    stages: tuple[StageResult, ...]
    seconds: float
    mirrors: MirrorTest
    image_seconds: float = 0.0
    origin: str = ""

    @property
    def best(self) -> StageResult:
        return max(self.stages, key=lambda stage: (stage.accuracy, -stage.nll))

    @property
    def last(self) -> StageResult:
        return [stage for stage in self.stages if len(stage.taps) == 1][-1]

    @property
    def head(self) -> StageResult:
        best, last = min(self.stages, key=lambda stage: stage.nll), self.last
        gain = last.losses - best.losses
        return best if gain.mean() > gain.std() / np.sqrt(len(gain)) else last

    def table(self) -> Table:
        table = Table("stage", "features", "accuracy", "95 % interval", "LogME", "seconds",
                      title="linear classifier on the frozen network, cross-validated")  # fmt: skip
        for stage in self.stages:
            low, high = stage.interval
            mark = " *" if stage is self.best else ""
            table.add_row(stage.name, str(stage.features), f"{stage.accuracy:.1%}{mark}", f"{low:.1%} to {high:.1%}",
                          f"{stage.logme:.3f}", f"{stage.seconds:.1f}")  # fmt: skip
        return table

    def __str__(self) -> str:
        console = Console(width=100)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get() + f"{self.seconds:.1f} s; {self.origin}"


@safe_output()
def probe(dataset, *, backbone="auto", seed: int = 0) -> Probe:
    """How well a linear classifier on each stage of the frozen backbone separates the classes of `dataset`.

    One pass of the network over the training images (and their mirror images), kept on disk so that a second call is
    free; then per stage and for all stages concatenated a multinomial logistic regression whose L2 penalty and accuracy
    come from stratified cross-validation within the training images. Prints the table that it returns.

    Raises: DataError, BackboneError.
    """
    splits = load(dataset)
    for note in splits.notes:
        logger.info(note)
    splits, facts = usable(splits, audit(splits))
    network = resolve(backbone)
    look = Extractor(network, natural_size(network, splits.train))
    told = probe_backbone(look, splits.train, facts, seed)
    logger.info(told)
    return told


def probe_backbone(
    look: Extractor, data: ImageData, facts: Audit, seed: int = 0, features: Features | None = None
) -> Probe:
    """`probe` of training images by a network at one size; `features`, where they have been extracted already.

    No picture, nor a nearly equal one, is held out from a classifier that has seen it.
    """
    began, fingerprints = time.monotonic(), facts.fingerprints["train"]
    if features is None:
        features = look(data, fingerprints, mirrored=len(data) < MIRRORED_BELOW)
    folds = content_folds(data.labels, facts.pictures(data), folds=_folds(len(data)), seed=seed)
    classes = len(data.class_names)
    numbers = sum(stage.size for stage in features.stages)
    with threadpool_limits(1 if numbers < SMALL else None, "blas"):
        mirrors = _mirrors(look, data, fingerprints, features, folds, seed)
        names, taps = look.names, [(i,) for i in range(len(look.names))]
        if len(names) > 1:
            names, taps = [*names, "all stages"], [*taps, tuple(range(len(taps)))]
        results = [
            _stage(name, features.tapped(tap), tap, data.labels, classes, folds, mirrors.alike)
            for name, tap in zip(names, taps, strict=True)
        ]
    return Probe(tuple(results), time.monotonic() - began, mirrors, features.image_seconds, features.origin)


def _folds(images: int) -> int:
    """Every image is held out once; with many images fewer folds tell as much."""
    return 5 if images < 2_000 else 3 if images < 10_000 else 2


def _mirrors(look: Extractor, data, fingerprints, features: Features, folds, seed) -> MirrorTest:
    """`mirror_test` of the network's end, on a sample of the images where they have no mirrored view yet."""
    last, labels = features.stages[-1], data.labels
    if len(last) == 1:
        rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:_MIRROR_SAMPLE])
        prints = [fingerprints[i] for i in rows]
        last = look(data.subset(rows), prints, mirrored=True).stages[-1]
        labels, folds = labels[rows], folds[rows]
    return mirror_test(last, labels, len(data.class_names), folds)


def mirror_test(features: np.ndarray, labels, classes: int, folds) -> MirrorTest:
    """Whether mirror images keep their class: a photo of an ant does, a handwritten 2 does not.

    A linear classifier that was fitted on images alone is asked about held-out images and their mirror images
    (features (2, n, channels)). Unlike, if it is right on significantly more images than mirror images: McNemar's
    test, (b − c) / √(b + c) > 2.58, where b images are right only straight and c only mirrored (p = 0.005).
    """
    logits = held_out_logits(features[:1], features, labels, classes, folds)
    best = int(np.argmin([cross_entropy(one[0], labels).mean() for one in logits]))
    right = logits[best].argmax(-1) == labels
    lost, won = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    alike = lost - won <= 2.58 * np.sqrt(lost + won)
    return MirrorTest(float(right[0].mean()), float(right[1].mean()), bool(alike))


def _stage(name: str, features: np.ndarray, taps, labels, classes: int, folds, mirrored: bool) -> StageResult:
    began = time.monotonic()
    features = features if mirrored else features[:1]
    logits = held_out_logits(features, features, labels, classes, folds)
    losses = [cross_entropy(one[0], labels) for one in logits]
    best = int(np.argmin([loss.mean() for loss in losses]))
    right = int((logits[best, 0].argmax(1) == labels).sum())
    classifier = fit_path(features, labels, classes, L2_PATH[: best + 1])[-1]
    probabilities = softmax(logits[best].astype(np.float64), -1)
    averaged = -np.log(np.maximum(probabilities.mean(0)[np.arange(len(labels)), labels], 1e-300))
    gain = np.mean([cross_entropy(view, labels) for view in logits[best]], 0) - averaged
    return StageResult(
        name, features.shape[-1], right / len(labels), wilson_interval(right, len(labels)), time.monotonic() - began,
        float(losses[best].mean()), logme(features[0] / channel_scale(features), labels, classes), tuple(taps),
        classifier, probabilities[0], losses[best], (float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))),
    )  # fmt: skip
