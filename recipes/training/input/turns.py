"""Divide the batches of an epoch among several input workers, which take turns."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf

from recipes import augment
from recipes.data.images import ImageData
from recipes.errors import WorkerError

MakeBatches = Callable[[int, int, int, int], tf.data.Dataset]


@dataclass(frozen=True)
class Turns(augment.Source):
    """Serve the batches turn, turn + count, turn + 2 · count, … of each epoch of the source `whole`."""

    whole: augment.Source = field(kw_only=True)
    turn: int = field(kw_only=True)
    count: int = field(kw_only=True)
    batch_size: int = field(kw_only=True)

    @classmethod
    def of(cls, whole: augment.Source, turn: int, count: int, batch_size: int) -> "Turns":
        batches = -(-whole.size // batch_size)
        size = batch_size * len(range(turn, batches, count))
        if size and (batches - 1) % count == turn:
            size -= batches * batch_size - whole.size
        return cls(size, whole.read, whole.name, whole=whole, turn=turn, count=count, batch_size=batch_size)

    def index(self, position: Any, epoch: Any, *, seed: int, shuffle: bool) -> tf.Tensor:
        """Return the index of the example at a position of an epoch."""
        batch = self.turn + self.count * (position // self.batch_size)
        return self.whole.index(batch * self.batch_size + position % self.batch_size, epoch, seed=seed, shuffle=shuffle)


def with_absolute_paths(data: ImageData) -> ImageData:
    """Return the same images, with paths that do not depend on the working directory."""
    return replace(data, images=[os.path.abspath(str(path)) for path in data.images]) if data.on_disk else data


def numbered_batches(train: ImageData, policy: augment.Policy, *, batch_size: int, seed: int, stop: int) -> MakeBatches:
    """Return a function (turn, count, epoch, batch) → dataset of (epoch, number, batch), see `Turns`.

    The dataset holds the batches turn, turn + count, … of all epochs before `stop`, starting at the given batch.
    """
    source, classes = with_absolute_paths(train).source(), len(train.class_names)
    if policy.extra is not None:
        raise WorkerError(
            "The policy has an extra layer, which cannot be sent to input workers; leave out the extra layer or "
            "input_workers",
            code="worker.extra_layer",
        )

    def make(turn: int, count: int, start: int, first_batch: int) -> tf.data.Dataset:
        turns = Turns.of(source, turn, count, batch_size)
        first = max(0, -(-(first_batch - turn) // count))

        def one_epoch(epoch: Any) -> tf.data.Dataset:
            begin = tf.where(epoch == start, tf.constant(first, tf.int64), 0)
            batches = augment.epoch(
                turns, policy, batch_size=batch_size, seed=seed, epoch=epoch, classes=classes,
                first_batch=begin,  # pyright: ignore[reportArgumentType]  a tensor is allowed
            )  # fmt: skip
            return batches.enumerate().map(lambda n, batch: (epoch, turn + count * (begin + n), batch))

        return tf.data.Dataset.range(start, stop).flat_map(one_epoch)

    return make
