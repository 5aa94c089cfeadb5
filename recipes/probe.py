"""What the frozen backbone already knows: a linear classifier on every stage's features, chosen by cross-validation."""

import time
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

import augment
from recipes.audit import audit, usable
from recipes.backbones import Backbone, resolve
from recipes.data import ImageData
from recipes.errors import DataError
from recipes.evaluation import wilson_interval
from recipes.features import evaluation_batches, extract, stage_model
from recipes.plan import natural_size
from recipes.sources import load

SMALL = 2_000_000  # numbers; below it BLAS threads cost more in waiting for each other than they save
L2_PATH = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier: logits = features · kernel + bias; `l2` is the penalty it was fitted with."""

    kernel: np.ndarray
    bias: np.ndarray
    l2: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features @ self.kernel + self.bias


@dataclass(frozen=True, eq=False)
class StageResult:
    """Cross-validated accuracy of a linear classifier on one stage, with its 95 % interval."""

    name: str
    features: int
    accuracy: float
    interval: tuple[float, float]
    seconds: float
    nll: float
    classifier: Linear = field(repr=False)
    out_of_fold: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class MirrorTest:
    """Cross-validated accuracy on images and on their mirror images, of a classifier that has seen no mirror image."""

    straight: float
    mirrored: float
    alike: bool


@dataclass(frozen=True, eq=False)
class Probe:
    """One `StageResult` per stage, shallow to deep. `best` has the highest accuracy, `last` is the network's end.

    mirrors: whether a mirror image has the class of its original; measured, see `mirror_test`.
    """

    stages: tuple[StageResult, ...]
    seconds: float
    mirrors: "MirrorTest"

    @property
    def best(self) -> StageResult:
        return max(self.stages, key=lambda stage: (stage.accuracy, -stage.nll))

    @property
    def last(self) -> StageResult:
        return self.stages[-1]

    def table(self) -> Table:
        table = Table("stage", "features", "accuracy", "95 % interval", "seconds", title="linear classifier per stage")
        for stage in self.stages:
            low, high = stage.interval
            mark = " *" if stage is self.best else ""
            row = (f"{stage.accuracy:.1%}{mark}", f"{low:.1%} to {high:.1%}", f"{stage.seconds:.1f}")
            table.add_row(stage.name, str(stage.features), *row)
        return table

    def __str__(self) -> str:
        console = Console(width=100)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get()


def probe(dataset, *, backbone="auto", seed: int = 0) -> Probe:
    """How well a linear classifier on each stage of the frozen backbone separates the classes of `dataset`.

    One pass of the network over the training images (and their mirror images), then per stage a multinomial logistic
    regression whose L2 penalty and accuracy come from stratified cross-validation within the training images.

    Raises: DataError, BackboneError.
    """
    splits = load(dataset)
    splits, facts = usable(splits, audit(splits))
    network = resolve(backbone)
    return probe_backbone(network, splits.train, facts.fingerprints["train"], natural_size(network, splits.train), seed)


def probe_backbone(backbone: Backbone, data: ImageData, fingerprints, size: int, seed: int = 0) -> Probe:
    """`probe` of a resolved backbone on training images at one size."""
    began = time.monotonic()
    model, names = stage_model(backbone, size)
    features = extract(model, evaluation_batches(data, augment.Policy.none(size), 32))
    folds = content_folds(data.labels, fingerprints, seed=seed)
    classes = len(data.class_names)
    with threadpool_limits(1 if max(x.size for x in features) < SMALL else None, "blas"):
        mirrors = mirror_test(features[-1], data.labels, classes, folds)
        views = slice(None) if mirrors.alike else slice(1)
        results = [_stage(name, x[views], data.labels, classes, folds) for name, x in zip(names, features, strict=True)]
    return Probe(tuple(results), time.monotonic() - began, mirrors)


def mirror_test(features: np.ndarray, labels, classes: int, folds) -> MirrorTest:
    """Whether mirror images keep their class: a photo of an ant does, a handwritten 2 does not.

    A linear classifier that was fitted on images alone is asked about held-out images and their mirror images
    (features (2, n, channels)). Unlike, if it is right on significantly more images than mirror images: McNemar's
    test, (b − c) / √(b + c) > 2.58, where b images are right only straight and c only mirrored (p = 0.005).
    """
    logits = np.stack([_held_out(features[:1], view, labels, classes, folds) for view in features])
    nll = [_nll(one, labels) for one in logits[0]]
    right = logits[:, int(np.argmin(nll))].argmax(-1) == labels
    lost, won = (right[0] & ~right[1]).sum(), (~right[0] & right[1]).sum()
    alike = lost - won <= 2.58 * np.sqrt(lost + won)
    return MirrorTest(float(right[0].mean()), float(right[1].mean()), bool(alike))


def content_folds(labels, fingerprints, *, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Fold number of every image: stratified by class, copies of one picture in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.unique(fingerprints, return_inverse=True)[1]
    distinct = {c: len(np.unique(groups[labels == c])) for c in np.unique(labels)}
    smallest = min(distinct.values())
    if smallest < 2:
        raise DataError(f"class {min(distinct, key=distinct.get)} has one distinct training picture; two are needed")
    fold_of = np.zeros(len(labels), int)
    splitter = StratifiedGroupKFold(max(2, min(folds, smallest)), shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):
        fold_of[held_out] = fold
    return fold_of


def _held_out(features: np.ndarray, asked: np.ndarray, labels, classes: int, folds) -> np.ndarray:
    """Logits (penalties, n, classes) for `asked` (n, channels), each from classifiers that saw the other folds."""
    logits = np.zeros((len(L2_PATH), len(labels), classes))
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        for i, linear in enumerate(fit_path(features[:, inside], labels[inside], classes, L2_PATH)):
            logits[i, outside] = linear.logits(asked[outside])
    return logits


def _nll(logits: np.ndarray, labels) -> float:
    return float(-log_softmax(logits, 1)[np.arange(len(labels)), labels].mean())


def _stage(name: str, features: np.ndarray, labels, classes: int, folds) -> StageResult:
    began = time.monotonic()
    held_out = _held_out(features, features[0], labels, classes, folds)
    nll = [_nll(logits, labels) for logits in held_out]
    best = int(np.argmin(nll))
    right = int((held_out[best].argmax(1) == labels).sum())
    classifier = fit_path(features, labels, classes, L2_PATH[: best + 1])[-1]
    return StageResult(
        name, features.shape[-1], right / len(labels), wilson_interval(right, len(labels)),
        time.monotonic() - began, nll[best], classifier, softmax(held_out[best], 1),
    )  # fmt: skip


def fit_path(features: np.ndarray, labels, classes: int, l2_path) -> list[Linear]:
    """Multinomial logistic regressions from strong to weak L2 penalty, each started at the one before.

    Minimises mean cross-entropy + l2/2 · Σ kernel² over the views (views, n, channels), the features centred and scaled
    to mean variance 1 so that one path of penalties suits every network. The penalty does not change under rotation, so
    the problem is solved exactly in the principal axes of the features, each axis with variance λ stretched by
    √(λ/4 + l2): Böhning's bound on the Hessian (1992), which makes the curvature nearly the same in all directions.
    """
    rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
    targets = np.eye(classes)[np.tile(labels, len(features))]
    mean = rows.mean(0)
    scale = np.sqrt(rows.var(0).mean()) or 1.0
    rows = (rows - mean) / scale
    basis, variances = principal_axes(rows)
    rows = rows @ basis
    kernel, bias, path = np.zeros((rows.shape[1], classes)), np.zeros(classes), []
    for l2 in l2_path:
        stretch = np.sqrt(variances / 4 + l2)[:, None]

        def objective(flat, l2=l2, stretch=stretch):
            kernel, bias = flat[:-classes].reshape(-1, classes) / stretch, flat[-classes:]
            logs = log_softmax(rows @ kernel + bias, 1)
            error = (np.exp(logs) - targets) / len(rows)
            loss = -(targets * logs).sum() / len(rows) + l2 / 2 * (kernel**2).sum()
            return loss, np.concatenate([((rows.T @ error + l2 * kernel) / stretch).ravel(), error.sum(0)])

        start = np.concatenate([(kernel * stretch).ravel(), bias])
        flat = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-5}).x
        kernel, bias = flat[:-classes].reshape(-1, classes) / stretch, flat[-classes:]
        unscaled = basis @ kernel / scale
        path.append(Linear(unscaled, bias - mean @ unscaled, l2))
    return path


def principal_axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal axes (channels, rank) that span centred rows (n, channels), and the variance along each."""
    n, channels = rows.shape
    variances, axes = np.linalg.eigh(rows @ rows.T if n < channels else rows.T @ rows)
    kept = variances > 1e-10 * variances[-1]
    variances, axes = variances[kept], axes[:, kept]
    return (rows.T @ axes / np.sqrt(variances) if n < channels else axes), variances / n
