"""Probe a dataset: cross-validate a linear classifier on the features of every stage of the frozen backbone."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from recipes.auditing.audit import Audit, audit, usable
from recipes.core.card import CardTable, card
from recipes.core.output import safe_output
from recipes.core.text import counted, described, percent
from recipes.data.image_size import natural_size
from recipes.data.images import ImageData
from recipes.data.sources import load
from recipes.evaluation.intervals import wilson_interval
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

MIRRORED_BELOW = 10_000  # with more images, mirror images double the cost without a gain
_HEADER = ("stage", "features", "accuracy", "95 % interval", "LogME", "seconds")
_MIRROR_SAMPLE = 2_000  # number of images in the mirror test of a larger dataset


@dataclass(frozen=True, eq=False)
class StageResult:
    """A cross-validated linear classifier on one stage, or on all of them concatenated.

    Attributes:
        name: Name of the stage.
        features: Number of channels.
        accuracy: Cross-validated accuracy.
        interval: 95 % interval of the accuracy.
        seconds: Seconds of the fits.
        nll: Mean cross-validated negative log-likelihood, nats.
        logme: A cheap score for ranking, see `recipes.probing.logme`.
        taps: Positions of the stages that the classifier reads.
        classifier: Linear classifier fitted to all training images.
        out_of_fold: Probabilities from classifiers that were not fitted to the image, (n, classes).
        losses: Negative log-likelihood of each image, out of fold, (n,).
        mirror_gain: Mean and standard error of the decrease in loss, in nats, from averaging over the image and its
            mirror image instead of using one of the two at random.
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

    def __repr__(self) -> str:
        accuracy = percent(self.accuracy, self.interval)
        return described("StageResult", repr(self.name), counted(self.features, "feature"), accuracy)


@dataclass(frozen=True)
class MirrorTest:
    """Cross-validated accuracy of a classifier that was fitted without mirror images.

    Attributes:
        straight: Accuracy on images.
        mirrored: Accuracy on their mirror images.
        alike: Whether mirror images keep their class.
    """

    straight: float
    mirrored: float
    alike: bool


@dataclass(frozen=True, eq=False)
class Probe:
    """The linear classifiers on all stages of a frozen network.

    Attributes:
        stages: One `StageResult` per stage, shallow to deep, then one for all stages concatenated.
        seconds: Seconds of the probe.
        mirrors: Whether mirror images keep their class, see `mirror_test`.
        image_seconds: Seconds per image that the network took when the features were computed.
        origin: Text that names the source of the features or the file in which they are saved.
    """

    stages: tuple[StageResult, ...]
    seconds: float
    mirrors: MirrorTest
    image_seconds: float = 0.0
    origin: str = ""

    @property
    def best(self) -> StageResult:
        """The stage with the highest accuracy."""
        return max(self.stages, key=lambda stage: (stage.accuracy, -stage.nll))

    @property
    def last(self) -> StageResult:
        """The last stage of the network."""
        return [stage for stage in self.stages if len(stage.taps) == 1][-1]

    @property
    def head(self) -> StageResult:
        """The stage that the final linear classifier reads.

        It is the stage with the lowest cross-validated loss, or the last stage if that is as good within one standard
        error of the paired difference.
        """
        best, last = min(self.stages, key=lambda stage: stage.nll), self.last
        gain = last.losses - best.losses
        return best if gain.mean() > gain.std() / np.sqrt(len(gain)) else last

    def table(self) -> Table:
        """Return the stages as a table."""
        table = Table(*_HEADER, title="linear classifier on the frozen network, cross-validated")
        for row in self._rows():
            table.add_row(*row)
        return table

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for stage in self.stages:
            low, high = stage.interval
            mark = " *" if stage is self.best else ""
            yield (stage.name, str(stage.features), f"{stage.accuracy:.1%}{mark}", f"{low:.1%} to {high:.1%}",
                   f"{stage.logme:.3f}", f"{stage.seconds:.1f}")  # fmt: skip

    def _repr_html_(self) -> str:
        """Return the card that a notebook shows."""
        best, images = self.best, counted(len(self.best.losses), "training image")
        title = f"linear classifier on {best.name} of the frozen network, cross-validated on {images}"
        facts = [("time", f"{self.seconds:.1f} s; {self.origin}")]
        return card(percent(best.accuracy, best.interval), title, facts, CardTable(_HEADER, list(self._rows())))

    def __repr__(self) -> str:
        best = f"best {self.best.name!r} {percent(self.best.accuracy, self.best.interval)}"
        images = counted(len(self.best.losses), "image")
        return described("Probe", counted(len(self.stages), "stage"), best, images, f"{self.seconds:.1f} s")

    def __str__(self) -> str:
        console = Console(width=100)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get() + f"{self.seconds:.1f} s; {self.origin}"


@safe_output()
def probe(dataset: Any, *, backbone: Any = "auto", seed: int = 0) -> Probe:  # Any: the forms that `finetune` takes
    """Measure how well linear classifiers on stages of the frozen backbone separate the classes of a dataset.

    One pass of the network over the training images and their mirror images computes the features. They are saved on
    disk, so a second call skips this pass. For each stage and for all stages concatenated, a multinomial logistic
    regression is fitted. Its L2 penalty and accuracy come from stratified cross-validation within the training images.

    Args:
        dataset: Labelled images in any form that `finetune` takes.
        backbone: The network, in any form that `finetune` takes.
        seed: Seed of the folds.

    Returns:
        The probe, which `print` shows as a table.

    Raises:
        DataError: If the dataset cannot be used.
        BackboneError: If the backbone cannot be loaded.
    """
    splits = load(dataset)
    for note in splits.notes:
        logger.info(note)
    splits, facts = usable(splits, audit(splits))
    network = resolve(backbone)
    extractor = Extractor(network, natural_size(network, splits.train))
    return probe_backbone(extractor, splits.train, facts, seed)


def probe_backbone(
    extractor: Extractor, data: ImageData, facts: Audit, seed: int = 0, features: Features | None = None
) -> Probe:
    """Probe training images with a network at one image size.

    Duplicates and near-duplicates of a picture are in one fold, so that no classifier is tested on a picture to which
    it was fitted.

    Args:
        extractor: The network.
        data: The training images.
        facts: Audit of the training images.
        seed: Seed of the folds.
        features: Features of the training images, if they have been extracted already.
    """
    began, fingerprints = time.monotonic(), facts.fingerprints["train"]
    if features is None:
        features = extractor(data, fingerprints, mirrored=len(data) < MIRRORED_BELOW)
    folds = content_folds(data.labels, facts.pictures(data), folds=_folds(len(data)), seed=seed)
    classes = len(data.class_names)
    numbers = sum(stage.size for stage in features.stages)
    with threadpool_limits(1 if numbers < SMALL else None, "blas"):
        mirrors = _mirrors(extractor, data, fingerprints, features, folds, seed)
        names, taps = extractor.names, [(i,) for i in range(len(extractor.names))]
        if len(names) > 1:
            names, taps = [*names, "all stages"], [*taps, tuple(range(len(taps)))]
        results = [
            _stage(name, features.tapped(tap), tap, data.labels, classes, folds, mirrors.alike)
            for name, tap in zip(names, taps, strict=True)
        ]
    return Probe(tuple(results), time.monotonic() - began, mirrors, features.image_seconds, features.origin)


def _folds(images: int) -> int:
    """Return the number of folds; many images need fewer folds for the same precision."""
    return 5 if images < 2_000 else 3 if images < 10_000 else 2


def _mirrors(
    extractor: Extractor, data: ImageData, fingerprints: Sequence[str], features: Features, folds: np.ndarray, seed: int
) -> MirrorTest:
    """Return the `mirror_test` of the last stage, on a sample of the images if the mirrored view is missing."""
    last, labels = features.stages[-1], data.labels
    if len(last) == 1:
        rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:_MIRROR_SAMPLE])
        prints = [fingerprints[int(i)] for i in rows]
        last = extractor(data.subset(rows), prints, mirrored=True).stages[-1]
        labels, folds = labels[rows], folds[rows]
    return mirror_test(last, labels, len(data.class_names), folds)


def mirror_test(features: np.ndarray, labels: np.ndarray, classes: int, folds: np.ndarray) -> MirrorTest:
    """Test whether mirror images keep their class: a photo of an ant does, a handwritten 2 does not.

    A linear classifier that was fitted without mirror images classifies held-out images and their mirror images. Mirror
    images lose their class if significantly fewer of them are classified correctly. The criterion is McNemar's test, (b
    − c) / √(b + c) > 2.58 (p = 0.005). Here b images are only classified correctly without mirroring, and c images only
    with mirroring.

    Args:
        features: Features of the images and of their mirror images, (2, n, channels).
        labels: Integer labels, (n,).
        classes: Number of classes.
        folds: Fold of each image, (n,).
    """
    logits = held_out_logits(features[:1], features, labels, classes, folds)
    best = int(np.argmin([cross_entropy(one[0], labels).mean() for one in logits]))
    right = logits[best].argmax(-1) == labels
    lost, won = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    alike = lost - won <= 2.58 * np.sqrt(lost + won)
    return MirrorTest(float(right[0].mean()), float(right[1].mean()), bool(alike))


def _stage(
    name: str, features: np.ndarray, taps: tuple[int, ...], labels: np.ndarray, classes: int, folds: np.ndarray,
    mirrored: bool,
) -> StageResult:  # fmt: skip
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
        name=name,
        features=features.shape[-1],
        accuracy=right / len(labels),
        interval=wilson_interval(right, len(labels)),
        seconds=time.monotonic() - began,
        nll=float(losses[best].mean()),
        logme=logme(features[0] / channel_scale(features), labels, classes),
        taps=taps,
        classifier=classifier,
        out_of_fold=probabilities[0],
        losses=losses[best],
        mirror_gain=(float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))),
    )
