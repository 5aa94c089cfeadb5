"""The main job: labelled images in, the best classifier that a pretrained network can become out."""

import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recipes.auditing.audit import Audit
from recipes.core.budget import Budget
from recipes.core.devices import prepare_devices
from recipes.core.output import safe_output
from recipes.data.evaluation_batches import some_images
from recipes.data.finding import Finding
from recipes.data.images import ImageData
from recipes.diagnostics.babysitter import LOOKED_AT, Babysitter
from recipes.distributed.cluster import Cluster
from recipes.distributed.job import job_of
from recipes.distributed.roles import follow, share_result
from recipes.errors import ClusterError
from recipes.evaluation.ledger import Gain
from recipes.evaluation.metrics import score
from recipes.planning.plan import with_snapshots
from recipes.planning.request import Request
from recipes.probing.label_errors import find_suspects
from recipes.result import Result
from recipes.runs.folder import LOGS
from recipes.runs.resume import RunState
from recipes.training.engines.choose import training_together
from recipes.training.engines.team import current_team, trainers
from recipes.training.fit import Fitted
from recipes.training.input.workers import InputWorkers, WorkerImages
from recipes.training.loop.failures import reading_failed
from recipes.training.prepare import Prepared, loaded, prepare
from recipes.training.train import train

logger = logging.getLogger(__name__)


def finetune(
    dataset=None,
    *,
    backbone="auto",
    recipe="auto",
    validation=None,
    time_limit=None,
    seed: int = 0,
    output=None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    snapshots: int = 0,
    strict: bool = False,
    devices=None,
    input_workers: Sequence[str] = (),
    verbose: bool = True,
) -> Result:
    """Turn an ImageNet-pretrained network into a classifier of your images.

    dataset:    a folder of class folders (or of train/, val/, test/ above them), what `pack` wrote, a CSV of
                path,label, "tfds:NAME", (images, labels), a tf.data.Dataset of (image or encoded bytes, label); None
                or "digits": the embedded handwritten digits.
    backbone:   "auto", a keras.applications call such as "MobileNetV2(alpha=0.35)", a .keras file, a keras.Model,
                "glyphs", or a run (a Result, its folder, or its model.keras), whose network is taken without its head.
    recipe:     "auto" (measured, see `plan`), "probe", "few", "all", "scratch", one of these `adjusted`, or a Recipe.
    validation: None (the dataset's own split, else a stratified fifth), a fraction, or a dataset. A part that is split
                off here is trained on as well, once everything has been chosen by it.
    time_limit: seconds, or "90s", "10m", "2h", for all together. Audit and probe are always run to their end; the plan
                fits what is left, and training stops in time with the best weights so far.
    seed:       two CPU runs with one seed give the same weights. Sets Python's, NumPy's and TensorFlow's seeds.
    output:     a folder for the saved run; `recipes.load(output)` brings the Result back. A run that was stopped goes
                on when it is given the same arguments; a finished one is given back. In its folder logs/ TensorBoard
                finds the training, and what a `Babysitter` saw of it; one of your own in `callbacks` takes its place.
    callbacks:  Keras callbacks for the training by gradient steps; the recipe "probe" has none, and the last training
                on all images does not call them. Those with `state()` and `restore(state)` go on with a stopped run.
    snapshots:  that many cycles of the learning rate in the same epochs; their ends are averaged, see
        `Recipe.snapshots`.
    strict:     whatever the audit finds is an error, see `audit`.
    devices:    that train together: None (all GPUs that TensorFlow sees), how many, or names such as ("GPU:0",
                "GPU:1"). Each has a slice of every batch, which stays the recipe's: the result is one device's, to the
                order of floating-point sums. The same command on several hosts, each with its TF_CONFIG, trains on all
                of them, see docs/distributed.md.
    input_workers: addresses, such as ["host:5050"], of machines on which `recipes input-worker` runs: they read and
        augment the training images instead of this process, batch for batch the same. See docs/scale.md.
    verbose:    print what is found, chosen and measured, and a progress bar. With False, only errors are printed; the
                same messages reach the handlers of the logger "recipes" either way.

    Raises: DataError, BackboneError, RecipeError, OutputError, WorkerError, before anything long begins; DataError when
        many images vanish meanwhile, WorkerError when all input workers do; TrainingError when the loss is no longer a
        number at an eighth of the learning rate either. On several hosts ClusterError, and PeerLost when one is gone:
        given again, the command goes on.

    Example: `recipes.finetune("photos/", output="run")`
    """
    began = time.monotonic()
    request = Request(dataset, backbone, recipe, validation, time_limit, seed, snapshots, strict, callbacks)
    output = None if output is None else Path(output).expanduser()
    with safe_output(verbose):
        job = job_of()
        if not job:
            prepare_devices()
            with training_together(devices):
                return _run(request, output, began, input_workers=input_workers)
        if input_workers:
            raise ClusterError(
                "input_workers cannot be used with TF_CONFIG: every host augments its own slice of each batch; leave "
                "out input_workers, or unset TF_CONFIG"
            )
        with Cluster(job, request.command | {"strict": strict}, devices) as cluster:
            if not cluster.leads:
                return Result.of(follow(cluster, loaded(request)))
            result = _run(request, output, began, cluster)
            share_result(cluster, result)
            return result


def _run(
    request: Request, output: Path | None, began: float, cluster: Cluster | None = None, input_workers=()
) -> Result:
    """Do the whole job, or what is left of it, in this process; `cluster`: the hosts that train with it."""
    with RunState(output, request.command) as run:
        if done := run.finished():
            return Result.of(done)
        workers = InputWorkers(input_workers) if input_workers else None
        budget = Budget.of(request.seconds, began - run.spent)
        planned = run.planned_recipe(request.recipe)
        try:
            splits = loaded(request)
            run.begin()
            if cluster:
                cluster.check_data(splits)
            ready = prepare(replace(request, recipe=planned or request.recipe), splits, budget, workers)
            changes = run.record_plan(ready.recipe, _images(ready), versions() | {"devices": trainers()})
            ready = replace(ready, recipe=(planned or ready.recipe).because(*changes))
            return _trained(request, ready, budget, run)
        except tf.errors.OpError as error:
            raise reading_failed(error) or error from None


def _trained(request: Request, ready: Prepared, budget: Budget, run: RunState) -> Result:
    """Train and evaluate what was prepared, and save the Result where `run` has a folder."""
    start, clock, callbacks = ready.start, ready.clock, request.callbacks
    chosen = with_snapshots(ready.recipe, request.snapshots) if request.snapshots else ready.recipe
    logger.info(chosen)
    if chosen.epochs and current_team():
        rule = "that size, the learning rate and the number of updates are those of one device"
        logger.info(f"{trainers()} share every batch of {chosen.batch_size} images: {rule}")
    if isinstance(start.splits.train, WorkerImages) and not chosen.epochs:
        logger.info("the input workers have nothing to do: this recipe trains on features, not on augmented images")
    if chosen.epochs and run.directory is not None and not any(isinstance(c, Babysitter) for c in callbacks):
        alone = not job_of()  # what a look inside does while other hosts wait for the next step is not known
        sample = _sampled(start.splits.train, chosen.size) if alone else None
        callbacks = [Babysitter(run.directory / LOGS, sample=sample), *callbacks]
    keras.utils.set_random_seed(request.seed)  # the same, whatever had to be computed before and what was at hand
    with clock("training"):
        trained = train(start, chosen, request.seed, budget, callbacks, kept=run.training)
    if run.spent:
        clock.seconds["before it was stopped"] = run.spent
    result = Result(
        model=trained.model, class_names=list(start.splits.train.class_names), recipe=trained.recipe,
        audit=_with_missing(ready.audit, trained.missing), backbone=start.network.name,
        history=trained.fitted.history if trained.fitted else {}, probe=start.measured,
        validation=trained.finished.validation, calibration=trained.finished.calibration, selection=trained.selection,
        seconds=clock.seconds, command=run.command, versions=versions(), table=ready.table,
        held_out=start.splits.validation, judged=trained.finished.judged,
    )  # fmt: skip
    run.save(result)  # what follows may fail, a test file may have vanished; the training is not lost then
    with clock("evaluation"):
        test = start.splits.test
        if test is not None:
            result.test = score(result.probabilities(test), test.labels)
    result.ledger = (*_training_rows(result, trained.fitted, trained.finished.rows), *trained.finished.rows)
    if start.measured:
        result.suspects = find_suspects(start.measured, start.features, start.splits.train, start.splits.validation)
    if budget.overrun > 1:
        result.recipe = result.recipe.because(
            f"the time limit was exceeded by {budget.overrun:.0f} s: audit, probe, compiling the network and the "
            "evaluation of validation and test images are not cut short"
        )
    run.save(result, complete=True)
    return result


def _sampled(data: ImageData, size: int) -> Callable:
    """Training images for a look inside the network, read when it comes to that."""
    return lambda: some_images(data, size, LOOKED_AT)


def _images(ready: Prepared) -> dict[str, str]:
    """Name → fingerprint of the images that are trained on or chosen by."""
    parts = (("train", ready.start.splits.train), ("validation", ready.start.splits.validation))
    return {n: p for split, data in parts for n, p in zip(data.names, ready.audit.fingerprints[split], strict=True)}


def _with_missing(audit: Audit, missing: tuple[str, ...]) -> Audit:
    if not missing:
        return audit
    finding = Finding("vanished", missing, "trained on until it vanished, then left out", excluded=True)
    return replace(audit, findings=(*audit.findings, finding))


def _training_rows(result: Result, fitted: Fitted | None, later: Sequence[Gain]) -> tuple[Gain, ...]:
    """What the linear classifier and what the training after it were worth on the validation images, before `later`."""
    rows = []
    if result.recipe.warm_start:
        single = next((row.accuracy - row.gain for row in later if row.trick == "mirror images"), None)
        single = result.validation.accuracy if single is None else single
        start = fitted.start.accuracy if fitted else single
        rows.append(Gain("linear classifier on the frozen network", start, seconds=result.probe.seconds))
    return (*rows, fitted.row(result.seconds["training"])) if fitted else tuple(rows)


def versions() -> dict[str, str]:
    """Of Python and the libraries that decide what a run computes."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
    }
