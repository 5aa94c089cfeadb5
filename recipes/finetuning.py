"""Turn labelled images and a pretrained network into the best classifier."""

import logging
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Unpack

import keras
import numpy as np
import tensorflow as tf

from recipes.auditing.audit import Audit
from recipes.core.budget import Budget
from recipes.core.devices import prepare_devices
from recipes.core.output import safe_output
from recipes.data.evaluation_batches import some_images
from recipes.data.finding import Finding
from recipes.diagnostics.babysitter import Babysitter
from recipes.diagnostics.measurements import SAMPLE_IMAGES
from recipes.distributed.cluster import Cluster
from recipes.distributed.job import job_of
from recipes.distributed.roles import follow, share_result
from recipes.errors import ClusterError
from recipes.evaluation.ledger import Gain, training_outcome
from recipes.evaluation.metrics import score
from recipes.planning.job_options import OptionValues, options_of
from recipes.planning.options import with_snapshots
from recipes.planning.ready_made import Adjusted
from recipes.planning.recipe import Recipe
from recipes.planning.request import Request, checked_verbosity
from recipes.probing.label_errors import find_suspects
from recipes.result import Result
from recipes.runs.folder import LOGS
from recipes.runs.resume import RunState
from recipes.training.engines.choose import training_together
from recipes.training.engines.team import current_team, trainers
from recipes.training.input.workers import InputWorkers, WorkerImages
from recipes.training.loop.failures import reading_failed
from recipes.training.prepare import Prepared, loaded, prepare
from recipes.training.start import Start
from recipes.training.train import Trained, train

logger = logging.getLogger(__name__)


def finetune(
    dataset: object = None,
    *,
    backbone: object = "auto",
    recipe: str | Recipe | Adjusted = "auto",
    validation: object = None,
    time_limit: float | str | None = None,
    seed: int = 0,
    output: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 1,
    **options: Unpack[OptionValues],
) -> Result:
    """Turn an ImageNet-pretrained network into a classifier of your images.

    Args:
        dataset: A folder of class folders (or of train/, val/, test/ above them), the output of `pack`, a CSV of
            path,label, "tfds:NAME", (images, labels), a tf.data.Dataset of (image or encoded bytes, label); None or
            "digits": the embedded handwritten digits.
        backbone: "auto", a keras.applications call such as "MobileNetV2(alpha=0.35)", a .keras file, a keras.Model,
            "glyphs", or a run (a Result, its folder, or its model.keras), whose network is used without its head.
        recipe: "auto" (measured, see `plan`), "probe", "few", "all", "scratch", the result of `adjusted`, or a Recipe.
        validation: None (the dataset's own split, else a stratified fifth), a fraction, or a dataset. After all choices
            are made, training is repeated with the images that were split off.
        time_limit: Seconds, or "90s", "10m", "2h", for the whole job. Audit and probe are never cut short. The plan
            fits the remaining time, and training stops in time with the best weights so far.
        seed: Two CPU runs with one seed give the same weights. The job sets the seeds of Python, NumPy and TensorFlow.
        output: A folder for the saved run; `recipes.load(output)` returns the Result again. The same arguments resume a
            stopped run, and return a finished one. The folder's logs/ holds the measurements of a `Babysitter` for
            TensorBoard; your own Babysitter in `callbacks` replaces it.
        callbacks: Keras callbacks for the training by gradient steps; the recipe "probe" calls none, nor does the final
            training on all images. Those with `state()` and `restore(state)` resume with the run.
        verbose: 0: print only warnings and errors; 1: a line for each phase, and a progress display on a terminal;
            2: also every choice and measurement. Handlers of the logger "recipes" always receive the messages.
        **options: The fields of `Options`: devices, input_workers, snapshots, strict.

    Returns:
        The classifier with its history.

    Raises:
        TypeError: For an unknown keyword; the message says what to use instead.
        DataError: If the dataset cannot be used, or many images vanish during the job.
        BackboneError: If the network cannot be loaded or used.
        RecipeError: If an argument is unknown, out of range, or contradicts another.
        OutputError: If the output folder cannot be written or holds something else.
        WorkerError: If an input worker cannot be reached, or all of them stop during the job.
        TrainingError: If the loss is NaN or infinite even at an eighth of the learning rate.
        ClusterError: If the workers on several hosts cannot work together.
        PeerLost: If a worker on another host stops; the same command resumes the run.

    Example:
        >>> recipes.finetune("photos/", output="run")
    """
    began = time.monotonic()
    request = Request(dataset, backbone, recipe, validation, time_limit, seed, callbacks, options_of(options))
    folder = None if output is None else Path(output).expanduser()
    with safe_output(checked_verbosity(verbose)):
        job = job_of()
        if not job:
            prepare_devices()
            with training_together(request.options.devices):
                return _run(request, folder, began)
        if request.options.input_workers:
            raise ClusterError(
                "input_workers cannot be used with TF_CONFIG: every host augments its own slice of each batch; leave "
                "out input_workers, or unset TF_CONFIG",
                code="cluster.input_workers",
            )
        with Cluster(job, request.command | {"strict": request.options.strict}, request.options.devices) as cluster:
            if not cluster.leads:
                return Result.of(follow(cluster, loaded(request)))
            result = _run(request, folder, began, cluster)
            share_result(cluster, result)
            return result


def _run(request: Request, output: Path | None, began: float, cluster: Cluster | None = None) -> Result:
    """Do the job, or resume an earlier process's; `cluster` holds the hosts that train together."""
    with RunState(output, request.command) as run:
        if done := run.finished():
            return Result.of(done)
        addresses = request.options.input_workers
        workers = InputWorkers(addresses) if addresses else None
        budget = Budget.of(request.seconds, began - run.spent)
        planned = run.planned_recipe(request.recipe)
        try:
            splits = loaded(request)
            run.begin()
            if cluster:
                cluster.check_data(splits)
            ready = prepare(replace(request, recipe=planned or request.recipe), splits, budget, workers)
            changes = run.record_plan(ready.recipe, _fingerprints(ready), versions() | {"devices": trainers()})
            ready = replace(ready, recipe=(planned or ready.recipe).with_reasons(*changes))
            return _train_and_evaluate(request, ready, budget, run)
        except tf.errors.OpError as error:
            raise reading_failed(error) or error from None


def _train_and_evaluate(request: Request, ready: Prepared, budget: Budget, run: RunState) -> Result:
    """Train as prepared, evaluate, and save the Result if `run` has a folder."""
    start, clock, snapshots = ready.start, ready.clock, request.options.snapshots
    recipe = with_snapshots(ready.recipe, snapshots) if snapshots else ready.recipe
    _log_training(recipe, start)
    callbacks = _callbacks(request, recipe, start, run)
    keras.utils.set_random_seed(request.seed)  # makes the seed independent of what was computed before
    with clock("training") as current:
        trained = train(start, recipe, request.seed, budget, callbacks, checkpoints=run.training)
        current.note = _outcome(trained)
    if run.spent:
        clock.seconds["before it was stopped"] = run.spent
    result = _result(ready, trained, run.command)
    run.save(result)  # saved before the evaluation, which fails if a test file has vanished
    test = start.splits.test
    if test is not None:
        with clock("evaluation") as current:
            result.test = score(result.probabilities(test), test.labels, result.class_names)
            current.note = f"{len(test):,} test images"
    result.ledger = (*_training_rows(start, trained, clock.seconds["training"]), *trained.finished.rows)
    if start.measured is not None and start.features is not None and start.splits.validation is not None:
        result.suspects = find_suspects(start.measured, start.features, start.splits.train, start.splits.validation)
    if budget.overrun > 1:
        result.recipe = result.recipe.because(
            "job.overrun",
            "the time limit was exceeded by {seconds:.0f} s, because audit, probe, compilation and evaluation are "
            "not cut short",
            seconds=budget.overrun,
        )
    run.save(result, complete=True)
    return result


def _outcome(trained: Trained) -> str:
    """Return the outcome of the training as text: what was trained, and whether it gained."""
    fitted = trained.fitted
    if fitted is None:
        return "linear classifier on the frozen network"
    epochs = f"{len(fitted.history.get('loss', ()))} epochs"
    return f"{epochs}, {training_outcome(fitted.row())}" if fitted.rival else epochs


def _log_training(recipe: Recipe, start: Start) -> None:
    """Log the recipe, and which devices and input workers take part."""
    logger.info(f"plan:       {recipe.headline}")
    logger.debug(recipe)
    if recipe.epochs and current_team():
        logger.info(
            f"{trainers()} share every batch of {recipe.batch_size} images; batch size, learning rate and number of "
            f"updates are the same as on one device"
        )
    if isinstance(start.splits.train, WorkerImages) and not recipe.epochs:
        logger.info("the input workers are not used, because this recipe trains on features, not on augmented images")


def _callbacks(request: Request, recipe: Recipe, start: Start, run: RunState) -> Sequence[keras.callbacks.Callback]:
    """Return the callbacks of the request, after a Babysitter that logs to the output folder."""
    watched = any(isinstance(callback, Babysitter) for callback in request.callbacks)
    if not recipe.epochs or run.directory is None or watched:
        return request.callbacks
    sample = None  # on several hosts, measuring activations would delay the steps of all
    if not job_of():
        sample = partial(some_images, start.splits.train, recipe.size, SAMPLE_IMAGES)
    return [Babysitter(run.directory / LOGS, sample=sample, routine=logging.DEBUG), *request.callbacks]


def _result(ready: Prepared, trained: Trained, command: dict) -> Result:
    """Return the Result, to which the evaluation adds the test metrics, the ledger and the suspects."""
    start, finished = ready.start, trained.finished
    return Result(
        model=trained.model, class_names=list(start.splits.train.class_names), recipe=trained.recipe,
        audit=_with_missing(ready.audit, trained.missing), backbone=start.network.name,
        history=trained.fitted.history if trained.fitted else {}, probe=start.measured,
        validation=finished.validation, calibration=finished.calibration, selection=trained.selection,
        seconds=ready.clock.seconds, command=command, versions=versions(), table=ready.table,
        held_out=start.splits.validation, judged=finished.judged,
    )  # fmt: skip


def _fingerprints(ready: Prepared) -> dict[str, str]:
    """Return name → fingerprint of the images for training and model selection."""
    return {
        name: fingerprint
        for split, data in ready.start.splits.given.items()
        if split != "test"
        for name, fingerprint in zip(data.names, ready.audit.fingerprints[split], strict=True)
    }


def _with_missing(audit: Audit, missing: tuple[str, ...]) -> Audit:
    if not missing:
        return audit
    finding = Finding("vanished", missing, "used in training until the file vanished", excluded=True)
    return replace(audit, findings=(*audit.findings, finding))


def _training_rows(start: Start, trained: Trained, seconds: float) -> tuple[Gain, ...]:
    """Return the ledger's rows for the linear classifier and for the training; `seconds` is the training's duration."""
    rows, fitted = [], trained.fitted
    if trained.recipe.warm_start and start.measured is not None:
        accuracy = fitted.start.accuracy if fitted else _single_accuracy(trained)
        rows.append(Gain("linear classifier on the frozen network", accuracy, seconds=start.measured.seconds))
    return (*rows, fitted.row(seconds)) if fitted else tuple(rows)


def _single_accuracy(trained: Trained) -> float:
    """Return the validation accuracy without averaging over mirror images."""
    for row in trained.finished.rows:
        if row.trick == "mirror images" and row.accuracy is not None and row.gain is not None:
            return row.accuracy - row.gain
    return trained.finished.validation.accuracy


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect what a run computes."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
    }
