"""Several hosts: a worker among its peers, and the updates that they compute together."""

import logging
import math
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import keras
import tensorflow as tf

from optimizers.weight_average import AveragingOptimizer
from recipes import errors
from recipes.core.devices import prepare_devices
from recipes.data.images import ImageData, Splits
from recipes.distributed.peers import Job, Peers
from recipes.distributed.same_data import facts_of
from recipes.errors import ClusterError, DataError, PeerLost, RecipeError, RecipesError
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import recipe_facts
from recipes.training.engines.mirrored import MirroredEngine, MirroredTeam
from recipes.training.engines.team import chosen_devices
from recipes.training.loop.failures import reading_failed

logger = logging.getLogger(__name__)


class Cluster(MirroredTeam):
    """This worker among its peers, in `with`: what ends worker 0 there ends all.

    asked:   what must be the same on all workers, name → words.
    devices: of this host, see `team.chosen_devices`.
    workers: (the number of this one, how many there are).

    Raises: ClusterError, see `Peers`, and where TensorFlow has been used in this process already.
    """

    def __init__(self, job: Job, asked: dict, devices=None):
        if keras.backend.backend() != "tensorflow":
            raise ClusterError(f"several hosts need KERAS_BACKEND=tensorflow; it is {keras.backend.backend()}")
        names = _only(devices)
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "numbers": prepare_devices(),
                    "devices": len(names)}  # fmt: skip
        self.peers = Peers(job, asked | versions)
        self.workers, self.hosts, self.running = (job.number, len(job.addresses)), len(job.addresses), False
        handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
        connected = threading.Event()
        threading.Thread(target=self._watch, args=[connected], daemon=True).start()
        try:
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise ClusterError(
                f"TensorFlow was used before finetune, and cannot join other hosts any more ({error}): call finetune "
                "first; give it a folder, a CSV or arrays, and the backbone by name"
            ) from None
        finally:
            connected.set()
        if threading.current_thread() is threading.main_thread():  # TensorFlow has put its own in their place
            for number, handler in handlers:
                signal.signal(number, handler)

    def _watch(self, connected: threading.Event) -> None:
        """While TensorFlow connects it waits for all, for ever, and hears no signals."""
        while not connected.wait(1):
            if self.peers.lost(0):
                logger.error(
                    "A worker stopped while TensorFlow was connecting. Run the same command again on every host."
                )
                os._exit(2)

    @property
    def leads(self) -> bool:
        return self.workers[0] == 0

    def engine(self, model: keras.Model) -> "Shared":
        return Shared(model, self)

    def check_data(self, splits: Splits) -> None:
        """That all workers have loaded the same images.

        Raises: DataError.
        """
        mine = facts_of(splits)
        for number in self.peers.others:
            its = self._of(number)["data"]
            if its != mine:
                wrong = "; ".join(f"{k} {mine.get(k)} at worker 0, {its.get(k)} at worker {number}" for k in mine
                                  if its.get(k) != mine[k])  # fmt: skip
                raise DataError(f"the workers do not have the same images: {wrong}; give all the same files")

    def await_all(self) -> None:
        """Until all have their slices of the next batch."""
        for number in self.peers.others:
            self._of(number)

    def _of(self, number: int) -> dict:
        """What a worker says next.

        Raises: what ended it, when that is a failure.
        """
        told = self.peers.receive(number)
        if "failed" in told:
            raise as_told(told, number)
        return told

    def last_words(self) -> BaseException | None:
        """What ended a worker that is gone, if it has said so."""
        found = self.peers.last_words(1 if self.leads else 5)  # worker 0 tells the others what it has heard
        return found and as_told(found[1], found[0])

    def rest(self) -> None:
        """Let the others leave the training that they take part in."""
        if self.running:
            self.running = False
            self.peers.send({"do": "leave"})
            for number in self.peers.others:
                while "left" not in self.peers.receive(number):
                    pass  # that it was ready

    def __exit__(self, kind, error, traceback):
        told = None
        if kind is not None and not issubclass(kind, PeerLost):
            if self.leads:
                told = {"do": "fail", "kind": kind.__name__, "text": str(error)}
            elif issubclass(kind, RecipesError):
                told = {"failed": str(error), "kind": kind.__name__}
        if told:
            with suppress(PeerLost):  # who need not be told any more
                self.peers.send(told)
        self.peers.close()
        return super().__exit__(kind, error, traceback)


def _only(devices) -> tuple[str, ...]:
    """The devices of this host that train; TensorFlow sees no other GPUs from here on.

    Raises: RecipeError for several CPUs, of which a host trains on one.
    """
    there = {kind: tf.config.list_physical_devices(kind) for kind in ("GPU", "CPU")}
    names = chosen_devices(devices, lambda kind: [gpu.name.removeprefix("/physical_device:") for gpu in there[kind]])
    if there["GPU"]:
        seen = [gpu for gpu in there["GPU"] if gpu.name.removeprefix("/physical_device:") in names]
        tf.config.set_visible_devices(seen, "GPU")
    return names


class Shared(MirroredEngine):
    """Updates by the devices of all workers, from the weights that worker 0 has when a training begins, after a fault,
    and after it has looked at them between two steps.

    drift: how far a worker's weights ever were from those of worker 0.
    """

    def __init__(self, model: keras.Model, cluster: Cluster):
        super().__init__(model, cluster)
        self.shard, self.drift, self._settled, self._begun = cluster.workers, 0.0, True, False

    def announce(self, task: dict) -> None:
        if self.team.leads:
            self.team.rest()
            self.team.peers.send({"do": "train", "task": _told(**task), **_model_told(self.model)})
            self.team.running = True

    def build(self, batches: tf.data.Dataset) -> None:
        super().build(batches)
        self._from_worker_0 = tf.function(self._agreed, autograph=False)

    def step(self, batch) -> dict:
        """For worker 0: the same as ever, once all have their slices."""
        self.team.await_all()
        self.team.peers.send({"do": "settle" if self._settled else "step"})
        return self._together(batch)

    def settle(self) -> None:
        self._settled = True

    def follow(self, stream: Iterator) -> None:
        """For the others: take part in the steps of worker 0 until it leaves."""
        peers = self.team.peers
        while True:
            try:
                batch = next(stream)
                peers.send({"ready": True})
            except tf.errors.OpError as error:
                peers.send({"failed": str(reading_failed(error) or error), "kind": "DataError"})
            told = peers.receive()
            if told["do"] == "leave":
                peers.send({"left": True})
                return
            if told["do"] == "fail":
                raise as_told(told)
            self._settled = told["do"] == "settle"
            self._together(batch)

    def _together(self, batch) -> dict:
        try:
            if self._settled:
                self._agree()
            return super().step(batch)
        except tf.errors.ResourceExhaustedError as error:  # the others are in the middle of that step
            raise RecipeError(
                f"memory ran out ({_last_line(error)}): recipe=recipes.adjusted(..., accumulate=2) computes each batch "
                "in two parts"
            ) from None
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            raise self.team.last_words() or PeerLost(f"a worker is gone ({_last_line(error)})") from None

    def _agree(self) -> None:
        """All variables of the update become worker 0's."""
        variables, apart = self._shared_variables(), [0.0]
        for variable, value in zip(variables, self._from_worker_0([v.value for v in variables]), strict=True):
            if self._begun and not self.team.leads and variable.value.dtype.is_floating:
                apart.append(float(tf.reduce_max(tf.abs(variable.value - value))))
            variable.assign(value)
        self.drift, self._settled, self._begun = max(self.drift, *apart), False, True

    def _shared_variables(self) -> list[keras.Variable]:
        optimizer = self.model.optimizer
        if isinstance(optimizer, AveragingOptimizer):  # worker 0 alone keeps the average
            optimizer = optimizer.optimizer
        return list({id(v): v for v in (*self.model.trainable_variables, *self._state, *optimizer.variables)}.values())

    def _agreed(self, values):
        leads, strategy = self.team.leads, self.team.strategy

        def summed(flat):
            context = tf.distribute.get_replica_context()
            mine = leads and context.replica_id_in_sync_group == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(mine, flat, tf.zeros_like(flat)))

        found = {}
        for kind in (tf.float32, tf.int64):
            rows = {i: v for i, v in enumerate(values) if v.dtype.is_floating == kind.is_floating}
            flat = tf.concat([tf.reshape(tf.cast(v, kind), [-1]) for v in rows.values()], 0)
            whole = strategy.experimental_local_results(strategy.run(summed, args=[flat]))[0]
            parts = tf.split(whole, [math.prod(v.shape) for v in rows.values()])
            found |= {i: tf.cast(tf.reshape(p, rows[i].shape), rows[i].dtype) for i, p in zip(rows, parts, strict=True)}
        return [found[i] for i in range(len(values))]


def _told(images: ImageData, recipe: Recipe, **rest) -> dict:
    """What another worker needs to take part in a training, as JSON values."""
    if recipe.policy.extra is not None:
        raise RecipeError("the policy's extra layer cannot be sent to other hosts: leave it out")
    labels = {"names": list(images.names), "labels": images.labels.tolist(), "class_names": list(images.class_names)}
    return {"images": labels, "recipe": recipe_facts(recipe), **rest}


def _model_told(model: keras.Model) -> dict:
    trainable = [layer.trainable for layer in model._flatten_layers()]
    return {"model": model.to_json(), "trainable": trainable, "shapes": shapes(model)}


def shapes(model: keras.Model) -> list:
    return [[variable.path, *variable.shape] for variable in model.variables]


def as_told(told: dict, number: int = 0) -> BaseException:
    """What ended a worker, to end this one; whoever passes it on, it names the worker where it happened."""
    if told["kind"] == "KeyboardInterrupt":
        return KeyboardInterrupt()
    if told["kind"] == "SystemExit":
        return SystemExit(int(told["text"]) if told["text"].isdigit() else 1)
    kind = getattr(errors, told["kind"], ClusterError)
    said = told["failed" if number else "text"]
    if not re.match(r"worker \d+: ", said):
        said = f"worker {number}: {said}"
    return (kind if issubclass(kind, RecipesError) else ClusterError)(said)


def _last_line(error) -> str:
    return error.message.strip().splitlines()[-1][:200] if error.message else type(error).__name__
