"""Connect one worker of a job to the other hosts, and compute updates together."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import keras
import tensorflow as tf

from recipes.core.devices import prepare_devices
from recipes.data.images import Splits
from recipes.distributed.job import Job
from recipes.distributed.messages import error_from_message, failure_message, training_message
from recipes.distributed.peers import Peers
from recipes.distributed.same_data import data_facts
from recipes.errors import ClusterError, DataError, PeerLost, RecipeError, RecipesError
from recipes.optimizers import AveragingOptimizer
from recipes.training.engines.mirrored import MirroredEngine, MirroredTeam
from recipes.training.engines.team import chosen_devices
from recipes.training.loop.failures import reading_failed

logger = logging.getLogger(__name__)


class Cluster(MirroredTeam):
    """Connect this worker to its peers, as a context manager; an error that ends worker 0 inside it ends all workers.

    Args:
        job: The addresses of the workers, and this worker's number.
        command: The arguments that must be the same on all workers, name → value.
        devices: The devices of this host that train, see `team.chosen_devices`.

    Attributes:
        peers: The connections to the other workers.
        shard: (number of this worker, number of workers).
        running: Whether the other workers currently take part in a training.

    Raises:
        ClusterError: If the workers do not connect (see `Peers`), Keras does not run on TensorFlow, or this process has
            already used TensorFlow.
    """

    def __init__(self, job: Job, command: dict, devices: int | str | Sequence[str] | None = None) -> None:
        if (backend := keras.backend.backend()) != "tensorflow":
            raise ClusterError(
                f"KERAS_BACKEND is {backend}; expected tensorflow for a job on several hosts. Set "
                f"KERAS_BACKEND=tensorflow",
                code="cluster.backend",
                backend=backend,
            )
        names = _select_devices(devices)
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "numbers": prepare_devices(),
                    "devices": len(names)}  # fmt: skip
        self.peers = Peers(job, command | versions)
        self.shard, self.hosts, self.running = (job.number, len(job.addresses)), len(job.addresses), False
        self.strategy = self._connected_strategy()

    def _connected_strategy(self) -> tf.distribute.Strategy:
        """Return TensorFlow's strategy, once it is connected to all workers."""
        handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
        connected = threading.Event()
        threading.Thread(target=self._exit_if_a_worker_stops, args=[connected], daemon=True).start()
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise ClusterError(
                f"TensorFlow was used before finetune, so it can no longer join other hosts ({error}). Call finetune "
                f"before other TensorFlow code; give a folder, a CSV or arrays as dataset, and the backbone by name",
                code="cluster.tensorflow_in_use",
            ) from None
        finally:
            connected.set()
        # TensorFlow replaced the signal handlers, so they are set again
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers:
                signal.signal(number, handler)
        return strategy

    def _exit_if_a_worker_stops(self, connected: threading.Event) -> None:
        """End the process if a worker stops while TensorFlow connects, which would wait forever and ignore signals."""
        while not connected.wait(1):
            if self.peers.lost(0):
                logger.error(
                    "A worker stopped while TensorFlow was connecting. Run the same command again on every host."
                )
                os._exit(2)

    @property
    def leads(self) -> bool:
        """Return whether this process is worker 0."""
        return self.shard[0] == 0

    def engine(self, model: keras.Model) -> "ClusterEngine":
        return ClusterEngine(model, self)

    def check_data(self, splits: Splits) -> None:
        """Check that all workers have loaded the same images.

        Raises:
            DataError: If they differ.
        """
        mine = data_facts(splits)
        for number in self.peers.others:
            theirs = self._receive(number)["data"]
            if theirs != mine:
                differences = "; ".join(
                    f"{name} is {value} at worker 0 and {theirs.get(name)} at worker {number}"
                    for name, value in mine.items()
                    if theirs.get(name) != value
                )
                raise DataError(
                    f"the workers do not have the same images ({differences}); copy the same files to every host",
                    code="data.differs_between_workers",
                    worker=number,
                )

    def await_all(self) -> None:
        """Wait until all workers have their slices of the next batch."""
        for number in self.peers.others:
            self._receive(number)

    def _receive(self, number: int) -> dict:
        """Return the next message of a worker, or raise the error that the message reports."""
        message = self.peers.receive(number)
        if message.get("do") == "fail":
            raise error_from_message(message, number)
        return message

    def reported_failure(self) -> BaseException | None:
        """Return the error that a stopped worker reported, if any."""
        failure = self.peers.reported_failure(1 if self.leads else 5)  # worker 0 forwards the error that it receives
        return failure and error_from_message(failure[1], failure[0])

    def end_training(self) -> None:
        """Notify the other workers that the training has ended."""
        if self.running:
            self.running = False
            self.peers.send({"do": "leave"})
            for number in self.peers.others:
                while "left" not in self.peers.receive(number):
                    pass  # that message said that the worker was ready for a batch

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> None:
        reported = isinstance(exception, BaseException if self.leads else RecipesError)
        if exception is not None and reported and not isinstance(exception, PeerLost):
            with suppress(PeerLost):
                self.peers.send(failure_message(exception))
        self.peers.close()
        super().__exit__(kind, exception, traceback)


def _select_devices(devices: int | str | Sequence[str] | None) -> tuple[str, ...]:
    """Return this host's devices that train, and hide all other GPUs from TensorFlow.

    Raises:
        RecipeError: For several CPUs; a host trains on one.
    """
    physical = {kind: tf.config.list_physical_devices(kind) for kind in ("GPU", "CPU")}
    names = chosen_devices(devices, lambda kind: [_short_name(device) for device in physical[kind]])
    if physical["GPU"]:
        tf.config.set_visible_devices([gpu for gpu in physical["GPU"] if _short_name(gpu) in names], "GPU")
    return names


def _short_name(device: tf.config.PhysicalDevice) -> str:
    return device.name.removeprefix("/physical_device:")


class ClusterEngine(MirroredEngine):
    """Compute updates on the devices of all workers.

    Worker 0 sends its weights to all workers when a training begins, after a fault, and after it has read or changed
    the weights between two steps.

    Attributes:
        drift: Largest difference so far between a weight here and the same weight at worker 0.
    """

    def __init__(self, model: keras.Model, cluster: Cluster) -> None:
        super().__init__(model, cluster)
        self.cluster, self.shard = cluster, cluster.shard
        self.drift, self._settled, self._started = 0.0, True, False
        self._from_worker_0 = tf.function(self._broadcast, autograph=False)

    def announce(self, task: dict) -> None:
        if self.cluster.leads:
            self.cluster.end_training()
            self.cluster.peers.send(training_message(self.model, **task))
            self.cluster.running = True

    def step(self, batch: Any) -> dict:
        """Compute one update as worker 0, once all workers have their slices of the batch."""
        self.cluster.await_all()
        self.cluster.peers.send({"do": "settle" if self._settled else "step"})
        return self._shared_step(batch)

    def settle(self) -> None:
        self._settled = True

    def follow(self, stream: Iterator) -> None:
        """Take part in the steps of worker 0 until that worker ends the training."""
        peers = self.cluster.peers
        while True:
            batch = None
            try:
                batch = next(stream)
                peers.send({"ready": True})
            except tf.errors.OpError as error:
                peers.send(failure_message(reading_failed(error) or error, "DataError"))
            message = peers.receive()
            if message["do"] == "leave":
                peers.send({"left": True})
                return
            if message["do"] == "fail":
                raise error_from_message(message)
            self._settled = message["do"] == "settle"
            self._shared_step(batch)

    def _shared_step(self, batch: Any) -> dict:
        try:
            if self._settled:
                self._copy_from_worker_0()
            return super().step(batch)
        except tf.errors.ResourceExhaustedError as error:  # the other workers are still in the middle of this step
            raise RecipeError(
                f"memory ran out ({_last_line(error)}); use recipe=recipes.adjusted(..., accumulate=2) to compute "
                f"each batch in two parts",
                code="recipe.out_of_memory",
            ) from None
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            failure = self.cluster.reported_failure()
            raise failure or PeerLost(f"a worker has stopped ({_last_line(error)})") from None

    def _copy_from_worker_0(self) -> None:
        """Assign worker 0's values to all variables of the update."""
        variables, differences = self._shared_variables(), [0.0]
        for variable, value in zip(variables, self._from_worker_0([v.value for v in variables]), strict=True):
            if self._started and not self.cluster.leads and variable.value.dtype.is_floating:
                differences.append(float(tf.reduce_max(tf.abs(variable.value - value))))
            variable.assign(value)
        self.drift, self._settled, self._started = max(self.drift, *differences), False, True

    def _shared_variables(self) -> list[keras.Variable]:
        optimizer = self.model.optimizer
        if isinstance(optimizer, AveragingOptimizer):  # only worker 0 keeps an average
            optimizer = optimizer.optimizer
        return list({id(v): v for v in (*self.model.trainable_variables, *self._state, *optimizer.variables)}.values())

    def _broadcast(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return worker 0's values of the tensors, as a sum to which the other workers contribute zeros."""
        leads, strategy = self.cluster.leads, self.cluster.strategy

        def summed(flat: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = leads and context.replica_id_in_sync_group == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, flat, tf.zeros_like(flat)))

        found: dict[int, tf.Tensor] = {}
        for kind in (tf.float32, tf.int64):
            rows = {i: v for i, v in enumerate(values) if v.dtype.is_floating == kind.is_floating}
            flat = tf.concat([tf.reshape(tf.cast(v, kind), [-1]) for v in rows.values()], 0)
            whole = strategy.experimental_local_results(strategy.run(summed, args=[flat]))[0]
            parts = tf.split(whole, [v.shape.num_elements() for v in rows.values()])
            found |= {i: tf.cast(tf.reshape(p, rows[i].shape), rows[i].dtype) for i, p in zip(rows, parts, strict=True)}
        return [found[i] for i in range(len(values))]


def _last_line(error: tf.errors.OpError) -> str:
    return error.message.strip().splitlines()[-1][:200] if error.message else type(error).__name__
