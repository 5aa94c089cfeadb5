"""Training batches that other machines prepare: the same batches in the same order as if they were prepared here."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

import augment
from recipes.core.addresses import port_of
from recipes.data.images import ImageData
from recipes.data.packs.records import Records
from recipes.errors import RecipesError, WorkerError
from recipes.training.input.stream import Lost, Remote, answers

logger = logging.getLogger(__name__)

IN_MEMORY = 2**28  # bytes of images that may travel to each worker within its graph
_READ, _PATIENCE = 8, 20.0  # images that every worker reads before the training, in so many seconds
AGAIN = "start them again and give the same command: it goes on from where it stopped"


@dataclass(frozen=True)
class Turns(augment.Source):
    """The batches turn, turn + count, turn + 2 · count, … of each epoch of `whole`, as a source of its own."""

    whole: augment.Source | None = None
    turn: int = 0
    count: int = 1
    batch_size: int = 1

    @classmethod
    def of(cls, whole: augment.Source, turn: int, count: int, batch_size: int) -> "Turns":
        batches = -(-whole.size // batch_size)
        size = batch_size * len(range(turn, batches, count))
        if size and (batches - 1) % count == turn:
            size -= batches * batch_size - whole.size
        return cls(size, whole.read, whole.name, whole, turn, count, batch_size)

    def index(self, position, epoch, *, seed: int, shuffle: bool) -> tf.Tensor:
        """Which example comes at a position of an epoch."""
        batch = self.turn + self.count * (position // self.batch_size)
        return self.whole.index(batch * self.batch_size + position % self.batch_size, epoch, seed=seed, shuffle=shuffle)


@dataclass(eq=False)
class InputWorkers:
    """Machines on which `recipes input-worker` runs, taking turns at the batches of a training.

    What a batch looks like is a function of seed, epoch and its number, so that it is the same whoever prepares it. A
    worker that dies is told, and the others take over from the batch at which it is missed; one that is back is used
    again from the next epoch on. With the last one the training ends, to be gone on with later.

    failure: why there are no more batches.
    """

    addresses: Sequence[str]
    lost: set[str] = field(default_factory=set)
    failure: RecipesError | None = None

    def __post_init__(self):
        """Raises: WorkerError for what is no address, and for workers that do not answer."""
        if not self.addresses or isinstance(self.addresses, str):
            raise WorkerError(f"input_workers is {self.addresses!r}; expected a list such as ['host:5050']")
        self.addresses = tuple(self.addresses)
        for address in self.addresses:
            if port_of(address) is None:
                raise WorkerError(f"input_workers hold {address!r}; expected host:port, such as 'localhost:5050'")
        if len(set(self.addresses)) < len(self.addresses):
            raise WorkerError(f"input_workers name one twice: {', '.join(self.addresses)}")
        silent = [address for address in self.addresses if not answers(address)]
        if silent:
            port = silent[0].rpartition(":")[2]
            raise WorkerError(
                f"no input worker answers at {', '.join(silent)}; start it there: recipes input-worker --port {port}"
            )

    def checked(self, data: ImageData) -> "WorkerImages":
        """Return the same images, to be augmented by these workers.

        Raises:
            WorkerError: Unless each worker reads some of the images, and finds the same bytes as this process.
        """
        if not data.on_disk and not isinstance(data.images, Records):
            held = data.images.nbytes if data.in_memory_pixels else sum(map(len, data.images))
            if held > IN_MEMORY:
                raise WorkerError(
                    f"the images are {held:,} bytes in memory, and at most {IN_MEMORY:,} are sent to each input "
                    "worker; write them to a folder that the workers can read, such as by recipes.pack"
                )
        spread = np.unique(np.linspace(0, len(data) - 1, _READ).astype(int))
        some = absolute(data.subset([i for i in spread if not data.on_disk or _readable(data.images[i])]))
        read = some.source().read

        def look(index):
            image = read(index)[0]
            content = image if image.dtype == tf.string else tf.io.serialize_tensor(image)
            return tf.strings.to_hash_bucket_fast(content, 2**62)

        looks = tf.data.Dataset.range(len(some)).map(tf.autograph.experimental.do_not_convert(look)).batch(len(some))
        here = next(looks.as_numpy_iterator(), None)
        for address in self.addresses if len(some) else ():
            with Remote(address, looks) as remote:
                try:
                    there = remote.next(time.monotonic() + _PATIENCE).numpy()
                except (Lost, tf.errors.OpError) as error:
                    raise WorkerError(_unread(address, error, some)) from error
            if (here != there).any():
                name = some.names[int((here != there).argmax())]
                raise WorkerError(f"input worker {address} finds another image than this machine under {name}")
        return WorkerImages(**vars(data) | {"workers": self})

    def batches(
        self, train, policy: augment.Policy, *, batch_size: int, seed: int, start: int, stop: int, first_batch: int
    ) -> tf.data.Dataset:
        """(images, labels) of the epochs `start` to `stop` - 1, from batch `first_batch` of the first on."""
        make = numbered(train, policy, batch_size=batch_size, seed=seed, stop=stop)
        *_, spec = make(0, 1, start, first_batch).element_spec

        def generate():
            self.failure = None
            try:
                yield from self._ordered(make, start, stop, -(-len(train) // batch_size), first_batch)
            except RecipesError as error:
                self.failure = error
                raise

        return tf.data.Dataset.from_generator(generate, output_signature=spec)

    def _ordered(self, make, epoch: int, stop: int, steps: int, batch: int) -> Iterator:
        doubted = set()  # places at which a worker that lives has failed
        while epoch < stop:
            alive = self._alive()
            remotes = [Remote(a, make(turn, len(alive), epoch, batch)) for turn, a in enumerate(alive)]
            try:
                while epoch < stop:
                    remote = remotes[batch % len(remotes)]
                    number, item = _numbered(remote.next())
                    if number != (epoch, batch):
                        raise WorkerError(f"input worker {remote.address} sent batch {number}, not {(epoch, batch)}")
                    yield item
                    epoch, batch = (epoch, batch + 1) if batch + 1 < steps else (epoch + 1, 0)
                    if batch == 0 and self._returned():
                        break
            except Lost as lost:
                self._without(remote.address, lost, epoch, batch)
            except tf.errors.OpError as error:
                place = remote.address, epoch, batch
                if place in doubted:
                    for _ in make(batch, steps, epoch, batch).take(1):  # raises what is wrong with an image
                        pass
                    raise WorkerError(f"input worker {remote.address} fails: {_first_line(error)}") from error
                doubted.add(place)  # it may have been started anew in between
            finally:
                for each in remotes:
                    each.close()

    def _alive(self) -> list[str]:
        return [address for address in self.addresses if address not in self.lost]

    def _returned(self) -> bool:
        back = {address for address in self.lost if answers(address, tries=1)}
        for address in back:
            logger.info(f"input worker {address} is back and prepares images again")
        self.lost -= back
        return bool(back)

    def _without(self, address: str, lost: Lost, epoch: int, batch: int) -> None:
        self.lost.add(address)
        left = self._alive()
        where = f"batch {batch + 1} of epoch {epoch + 1}"
        if not left:
            raise WorkerError(f"all input workers are gone, the last was {address} ({lost}), at {where}; {AGAIN}")
        logger.warning(
            f"input worker {address} is gone ({lost}): from {where} on, {', '.join(left)} will prepare its images"
        )


@dataclass(frozen=True, eq=False)
class WorkerImages(ImageData):
    """Training images that input workers read and augment."""

    workers: InputWorkers = field(kw_only=True)


def _numbered(element):
    epoch, batch, item = element
    return (int(epoch), int(batch)), item


def _first_line(error: Exception) -> str:
    """Of what the worker met, without the names of TensorFlow's internals."""
    line = re.sub(r"\{\{[^}]*\}\} ?", "", str(error).splitlines()[0])
    return line.rpartition("Failed to get element: ")[2][:300]


def _unread(address: str, error: Exception, data) -> str:
    if isinstance(error, Lost):
        return (
            f"input worker {address} answers but sends no images ({error}): the port after its own must be open too, "
            "and its --host be the name by which this machine reaches it"
        )
    return (
        f"input worker {address} cannot read the images ({_first_line(error)}); they must lie under the same path as "
        f"here, for example {data.names[0]}: use a file system that all share, or a copy at the same place"
    )


def _readable(path: str) -> bool:
    """What is not is the audit's concern."""
    return os.path.isfile(path) and os.access(path, os.R_OK)


def absolute(data):
    """The same images by paths that do not depend on the folder that a process was started in."""
    return replace(data, images=[os.path.abspath(path) for path in data.images]) if data.on_disk else data


def numbered(train, policy: augment.Policy, *, batch_size: int, seed: int, stop: int) -> Callable:
    """(turn, count, epoch, batch) → dataset of (epoch, number, batch): of all epochs up to `stop`, from that batch on,
    the batches turn, turn + count, …, see `Turns`."""
    source, classes = absolute(train).source(), len(train.class_names)
    if policy.extra is not None:
        raise WorkerError(
            "the policy has an extra layer, which lives in this process: leave input_workers or the layer out"
        )

    def make(turn: int, count: int, start: int, first_batch: int) -> tf.data.Dataset:
        mine = Turns.of(source, turn, count, batch_size)
        first = max(0, -(-(first_batch - turn) // count))

        def one_epoch(epoch):
            begin = tf.where(epoch == start, tf.constant(first, tf.int64), 0)
            batches = augment.epoch(
                mine, policy, batch_size=batch_size, seed=seed, epoch=epoch, first_batch=begin, classes=classes
            )
            return batches.enumerate().map(lambda n, batch: (epoch, turn + count * (begin + n), batch))

        return tf.data.Dataset.range(start, stop).flat_map(one_epoch)

    return make
