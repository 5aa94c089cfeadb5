"""Let other machines prepare the training batches: the same batches in the same order as on one machine."""

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.core.addresses import port_of
from recipes.data.images import ImageData
from recipes.data.packs.records import Records
from recipes.errors import RecipesError, WorkerError
from recipes.training.input.stream import Lost, Remote, answers
from recipes.training.input.turns import MakeBatches, numbered_batches, with_absolute_paths

logger = logging.getLogger(__name__)

IN_MEMORY = 2**28  # maximum bytes of in-memory images that are sent to each worker within its graph
# number of images that every worker reads as a test before the training, and the time limit of the test in seconds
_READ, _PATIENCE = 8, 20.0


@dataclass(eq=False)
class InputWorkers:
    """Let machines that run `recipes input-worker` take turns at preparing the batches of a training.

    A batch depends only on the seed, the epoch and its number, so every worker prepares the same one. When a worker
    stops, a warning is logged and the other workers take over from its next batch. A worker that is back is used again
    from the next epoch on. When the last worker stops, the training ends with an error and can be resumed.

    Attributes:
        addresses: The workers, as "host:port".
        lost: The workers that currently do not answer.
        failure: The error that ended the stream of batches.
    """

    addresses: Sequence[str]
    lost: set[str] = field(default_factory=set)
    failure: RecipesError | None = None

    def __post_init__(self) -> None:
        """Check the addresses and the workers.

        Raises:
            WorkerError: If an address is malformed or given twice, or if a worker does not answer (`code`
                "worker.address", "worker.duplicate" and "worker.silent").
        """
        if not self.addresses or isinstance(self.addresses, str):
            raise WorkerError(
                f"input_workers is {self.addresses!r}; expected a list of addresses, such as ['host:5050']",
                code="worker.address",
                value=self.addresses,
            )
        self.addresses = tuple(self.addresses)
        for address in self.addresses:
            if port_of(address) is None:
                raise WorkerError(
                    f"input_workers contains {address!r}; expected host:port, such as 'localhost:5050'",
                    code="worker.address",
                    value=address,
                )
        if len(set(self.addresses)) < len(self.addresses):
            raise WorkerError(
                f"input_workers contains an address twice: {', '.join(self.addresses)}; give each worker once",
                code="worker.duplicate",
                value=self.addresses,
            )
        silent = [address for address in self.addresses if not answers(address)]
        if silent:
            port = silent[0].rpartition(":")[2]
            raise WorkerError(
                f"No input worker answers at {', '.join(silent)}; start one on that machine: recipes input-worker "
                f"--port {port}",
                code="worker.silent",
                addresses=silent,
            )

    def checked(self, data: ImageData) -> "WorkerImages":
        """Return the same images as a dataset that these workers augment.

        Raises:
            WorkerError: If a worker cannot read some of the images, if it reads other bytes than this process, or if
                the images in memory are too large to send (`code` "worker.unread", "worker.other_image" and
                "worker.memory").
        """
        _check_size(data)
        spread = np.unique(np.linspace(0, len(data) - 1, _READ).astype(int))
        sample = with_absolute_paths(data.subset([i for i in spread if _readable(data, i)]))
        hashes = _content_hashes(sample)
        expected = next(hashes.as_numpy_iterator(), None)
        for address in self.addresses if expected is not None else ():
            with Remote(address, hashes) as remote:
                try:
                    found = remote.next(time.monotonic() + _PATIENCE).numpy()
                except (Lost, tf.errors.OpError) as error:
                    reason = _reason_unread(address, error, sample)
                    raise WorkerError(reason, code="worker.unread", address=address) from error
            if (expected != found).any():
                name = sample.names[int((expected != found).argmax())]
                raise WorkerError(
                    f"Input worker {address} reads different bytes than this machine for {name}; copy the same files "
                    f"to both",
                    code="worker.other_image",
                    address=address,
                    path=name,
                )
        return WorkerImages(data.images, data.labels, data.class_names, data.names, workers=self)

    def batches(
        self, train: ImageData, policy: augment.Policy, *, batch_size: int, seed: int, start: int, stop: int,
        first_batch: int,
    ) -> tf.data.Dataset:  # fmt: skip
        """Return the (images, labels) of the epochs `start` to `stop` - 1, from batch `first_batch` of the first on."""
        make = numbered_batches(train, policy, batch_size=batch_size, seed=seed, stop=stop)
        spec: Any = make(0, 1, start, first_batch).element_spec

        def generate() -> Iterator:
            self.failure = None
            try:
                yield from self._ordered(make, start, stop, -(-len(train) // batch_size), first_batch)
            except RecipesError as error:
                self.failure = error
                raise

        return tf.data.Dataset.from_generator(generate, output_signature=spec[-1])

    def _ordered(self, make: MakeBatches, epoch: int, stop: int, steps: int, batch: int) -> Iterator:
        """Yield the batches of all workers in order, from one batch of an epoch on; an epoch has `steps` batches."""
        failed = set()  # batches at which a worker failed although it still answers
        while epoch < stop:
            alive = self._alive()
            remotes = [Remote(a, make(turn, len(alive), epoch, batch)) for turn, a in enumerate(alive)]
            remote = remotes[batch % len(remotes)]
            try:
                while epoch < stop:
                    remote = remotes[batch % len(remotes)]
                    number, item = _with_number(remote.next())
                    if number != (epoch, batch):
                        raise WorkerError(
                            f"Input worker {remote.address} sent batch {number} instead of {(epoch, batch)}",
                            code="worker.order",
                            address=remote.address,
                        )
                    yield item
                    epoch, batch = (epoch, batch + 1) if batch + 1 < steps else (epoch + 1, 0)
                    if batch == 0 and self._returned():
                        break
            except Lost as lost:
                self._drop(remote.address, lost, epoch, batch)
            except tf.errors.OpError as error:
                place = remote.address, epoch, batch
                if place in failed:
                    for _ in make(batch, steps, epoch, batch).take(1):  # a bad image raises again
                        pass
                    raise WorkerError(
                        f"Input worker {remote.address} failed twice: {_first_line(error)}",
                        code="worker.failed",
                        address=remote.address,
                    ) from error
                failed.add(place)  # the worker may have been restarted after its first failure
            finally:
                for each in remotes:
                    each.close()

    def _alive(self) -> list[str]:
        return [address for address in self.addresses if address not in self.lost]

    def _returned(self) -> bool:
        back = {address for address in self.lost if answers(address, tries=1)}
        for address in back:
            logger.info(f"Input worker {address} answers again and prepares images from this epoch on.")
        self.lost -= back
        return bool(back)

    def _drop(self, address: str, lost: Lost, epoch: int, batch: int) -> None:
        self.lost.add(address)
        remaining = self._alive()
        where = f"batch {batch + 1} of epoch {epoch + 1}"
        if not remaining:
            raise WorkerError(
                f"All input workers have stopped, the last one, {address}, at {where} ({lost}). Restart them and run "
                "the same command again; it resumes where it stopped.",
                code="worker.all_lost",
                address=address,
            )
        logger.warning(
            f"Input worker {address} has stopped ({lost}). From {where} on, {', '.join(remaining)} will prepare its "
            "images."
        )


@dataclass(frozen=True, eq=False, repr=False)
class WorkerImages(ImageData):
    """Read and augment training images on input workers."""

    workers: InputWorkers = field(kw_only=True)


def _with_number(element: Any) -> tuple[tuple[int, int], Any]:
    epoch, batch, item = element
    return (int(epoch), int(batch)), item


def _first_line(error: Exception) -> str:
    """Return the first line of a worker's error, without the names of TensorFlow's internals."""
    line = re.sub(r"\{\{[^}]*\}\} ?", "", str(error).splitlines()[0])
    return line.rpartition("Failed to get element: ")[2][:300]


def _check_size(data: ImageData) -> None:
    if data.on_disk or isinstance(data.images, Records):
        return
    size = data.images.nbytes if isinstance(data.images, np.ndarray) else sum(map(len, data.images))
    if size > IN_MEMORY:
        raise WorkerError(
            f"The images in memory take {size:,} bytes; expected at most {IN_MEMORY:,}, because they are sent to "
            f"each input worker. Write them to a folder that the workers can read, for example with recipes.pack",
            code="worker.memory",
            size=size,
            limit=IN_MEMORY,
        )


def _content_hashes(data: ImageData) -> tf.data.Dataset:
    """Return one batch with a hash of each image's content."""
    read = data.source().read

    def content_hash(index: tf.Tensor) -> tf.Tensor:
        image = read(index)[0]
        content = image if image.dtype == tf.string else tf.io.serialize_tensor(image)
        return tf.strings.to_hash_bucket_fast(content, 2**62)

    hashes = tf.data.Dataset.range(len(data)).map(tf.autograph.experimental.do_not_convert(content_hash))
    return hashes.batch(max(1, len(data)))


def _reason_unread(address: str, error: Exception, data: ImageData) -> str:
    if isinstance(error, Lost):
        return (
            f"Input worker {address} answers but sends no images ({error}). Open the next higher port on that "
            f"machine too, and start the worker with --host NAME, where NAME is how this machine reaches it"
        )
    return (
        f"Input worker {address} cannot read the images ({_first_line(error)}). The images need the same path on the "
        f"worker as on this machine, for example {data.names[0]}: use a shared file system, or copy the files to the "
        f"same path"
    )


def _readable(data: ImageData, index: int) -> bool:
    """Return whether an image can be read; the audit reports unreadable images."""
    if not data.on_disk:
        return True
    path = str(data.images[index])
    return os.path.isfile(path) and os.access(path, os.R_OK)
