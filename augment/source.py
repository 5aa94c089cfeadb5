"""Define the datasets that a pipeline reads: sources with random access, and streams."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from .draws import bits
from .pixel_range import check_images
from .policy import PolicyError
from .tensors import Tensor

SHUFFLE_BUFFER = (
    1024  # number of examples in the buffer that shuffles a stream; a Source is shuffled as a whole without a buffer
)


@dataclass(frozen=True)
class Source:
    """Provide a dataset with random access.

    Args:
        size: number of examples.
        read: TensorFlow function from an int64 scalar index to (encoded bytes | image (height, width, 1|3|4), label).
            In this function, use tf.cond instead of `if` for conditions on tensors.
        name: TensorFlow function from the index to the name of the example in errors.
    """

    size: int
    read: Callable
    name: Callable | None = None

    @property
    def element_spec(self) -> Any:
        """Return the TensorSpecs of (image, label)."""
        return tf.data.Dataset.range(1).map(self.read).element_spec

    def index(self, position: Tensor, epoch: Tensor, *, seed: int, shuffle: bool) -> Tensor:
        """Return the index of the example at a position of an epoch, by a bijection of 0..size-1."""
        if not shuffle or self.size < 2:
            return position
        key = tf.bitcast(bits(seed, epoch, -1), tf.int32)
        random: Any = tf.random  # TensorFlow's stubs lack `experimental`
        return random.experimental.index_shuffle(tf.minimum(position, self.size - 1), key, max_index=self.size - 1)

    def examples(self, epochs: tf.data.Dataset, *, seed: int, shuffle: bool, first: Tensor) -> tf.data.Dataset:
        """Return (position, epoch, index, end, ()) from position `first` on; a final extra element has end=True.

        Args:
            epochs: dataset of one int64 scalar.
            seed: seed of the shuffling.
            shuffle: whether to shuffle.
            first: position to begin at.
        """

        @tf.autograph.experimental.do_not_convert
        def one_pass(epoch: Tensor) -> tf.data.Dataset:
            def block(position: Tensor) -> tuple[Any, ...]:
                index = self.index(position, epoch, seed=seed, shuffle=shuffle)
                return position, tf.fill(tf.shape(position), epoch), index, position >= self.size, ()

            block = tf.autograph.experimental.do_not_convert(block)
            return tf.data.Dataset.range(first, self.size + 1).batch(1024).map(block).unbatch()

        return epochs.flat_map(one_pass)

    def take(self, index: Tensor, payload: Any) -> Any:
        """Return (image, label) of an element of `examples`."""
        return self.read(index)

    def called(self, index: Tensor) -> Tensor:
        """Return the name of that example in errors."""
        return self.name(index) if self.name else tf.strings.format("example {}", index)


@dataclass(frozen=True, kw_only=True)
class Shard(Source):
    """Provide a Source whose batches of `width` examples are slices of the batches of `whole`.

    Slice i of c of a batch of n examples begins at i·⌊n / c⌋ + min(i, n mod c), as in `numpy.array_split`. The examples
    of a slice keep their positions in the batch.

    Attributes:
        whole: The complete dataset.
        batch_size: The size of its batches.
        slice: (i, c).
        lead: The number of examples before the slice (0 or 1) that are added; the batch's last example precedes its
            first.
    """

    whole: Source
    batch_size: int
    slice: tuple[int, int]
    lead: int

    @staticmethod
    def of(whole: "Source | Stream", batch_size: int, slice: tuple[int, int], lead: int) -> "Shard":
        """Return a shard of `whole`.

        Raises:
            PolicyError: If the slice is impossible or empty, or `whole` is a stream.
        """
        index, count = slice
        if not 0 <= index < count:
            raise PolicyError(f"shard is {slice}; expected (index, count) with 0 ≤ index < count")
        if not isinstance(whole, Source):
            raise PolicyError("a stream has no shards; pass arrays or an augment.Source, which have random access")
        if batch_size < count:
            raise PolicyError(
                f"batches of {batch_size} examples cannot be divided into {count} slices; use a larger batch size"
            )
        full, rest = divmod(whole.size, batch_size)
        last = slice_size(rest, slice)
        size = full * (slice_size(batch_size, slice) + lead) + last + (lead if last else 0)
        return Shard(size, whole.read, whole.name, whole=whole, batch_size=batch_size, slice=slice, lead=lead)

    @property
    def width(self) -> int:
        """Return the number of examples in a full batch."""
        return slice_size(self.batch_size, self.slice) + self.lead

    def index(self, position: Tensor, epoch: Tensor, *, seed: int, shuffle: bool) -> Tensor:
        """Return the index in `whole` of the example at a position of the shard's epoch."""
        index, count = self.slice
        first = position // self.width * self.batch_size
        n: Tensor = tf.clip_by_value(self.whole.size - first, 1, self.batch_size)  # one position beyond the end
        begin = index * (n // count) + tf.minimum(tf.cast(index, n.dtype), n % count)
        within = (begin + position % self.width - self.lead) % n
        return self.whole.index(first + within, epoch, seed=seed, shuffle=shuffle)


def slice_size(n: int, slice: tuple[int, int]) -> int:
    """Return the number of examples of slice (index, count) of a batch of n."""
    index, count = slice
    return n // count + (index < n % count)


@dataclass(frozen=True, eq=False)
class Stream:
    """Read a tf.data.Dataset of (encoded bytes | image, label) in order, and shuffle it through a buffer."""

    dataset: tf.data.Dataset

    @property
    def size(self) -> int | None:
        """Return the number of examples; None if it is unknown."""
        size = int(self.dataset.cardinality())
        return size if size >= 0 else None

    @property
    def element_spec(self) -> Any:
        """Return the TensorSpecs of (image, label)."""
        return self.dataset.element_spec

    def examples(self, epochs: tf.data.Dataset, *, seed: int, shuffle: bool, first: Tensor) -> tf.data.Dataset:
        """Return (position, epoch, index, end, (image, label)), see `Source.examples`."""
        blank = tf.nest.map_structure(
            lambda spec: tf.zeros([n or 1 for n in spec.shape], spec.dtype), self.element_spec
        )

        def one_pass(epoch: Tensor) -> tf.data.Dataset:
            items = self.dataset.enumerate()
            if shuffle:
                # This seed only affects this graph, so the order does not depend on a global seed. A seed of 0 fails.
                tf.compat.v1.get_default_graph().seed = 1
                key = tf.bitcast(bits(seed, epoch, -1), tf.int64)
                items = items.shuffle(SHUFFLE_BUFFER, seed=key, reshuffle_each_iteration=False)
            items = items.map(lambda index, item: (index, False, item))
            last = tf.data.Dataset.from_tensors((tf.constant(0, tf.int64), True, blank))
            return items.concatenate(last).enumerate().map(lambda n, item: (n, epoch, *item)).skip(first)

        return epochs.flat_map(one_pass)

    def take(self, index: Tensor, payload: Any) -> Any:
        """Return (image, label) of an element of `examples`."""
        return payload

    def called(self, index: Tensor) -> Tensor:
        """Return the name of that example in errors."""
        return tf.strings.format("example {}", index)


def as_source(dataset: Any) -> Source | Stream:
    """Return a Source for a Source or (images, labels) arrays, or a Stream for a tf.data.Dataset of pairs.

    Raises:
        PolicyError: If the dataset is of another type or already batched.
    """
    if isinstance(dataset, Source | Stream):
        return dataset
    if isinstance(dataset, tf.data.Dataset):
        return Stream(_checked(dataset))
    if isinstance(dataset, tuple | list) and len(dataset) == 2:
        return _from_arrays(*dataset)
    raise PolicyError(
        f"dataset is a {type(dataset).__name__}; expected a tf.data.Dataset of (encoded bytes | image, label), a pair "
        "(images, labels) of arrays, or an augment.Source"
    )


def _checked(dataset: Any) -> tf.data.Dataset:
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise PolicyError(f"dataset yields {spec}; expected pairs (encoded bytes | image, label)")
    image = spec[0]
    if image.dtype != tf.string and image.shape.rank is None:
        raise PolicyError(
            "dataset yields images of unknown shape, such as py_function and numpy_function produce; call "
            "image.set_shape((None, None, 3)) in the mapped function"
        )
    if image.shape.rank != (0 if image.dtype == tf.string else 3):
        raise PolicyError(
            f"dataset yields images of shape {image.shape} {image.dtype.name}; expected one string of encoded bytes or "
            "(height, width, channels). If the dataset is already batched, pass dataset.unbatch()"
        )
    return dataset


def _from_arrays(images: Tensor, labels: Any) -> Source:
    images = tf.convert_to_tensor(images)
    labels = (
        tf.nest.map_structure(tf.convert_to_tensor, labels)
        if isinstance(labels, dict)
        else tf.convert_to_tensor(labels)
    )
    rank = 1 if images.dtype == tf.string else 4
    for part in tf.nest.flatten(labels):
        if images.shape.rank != rank or part.shape.rank == 0 or images.shape[0] != part.shape[0]:
            raise PolicyError(
                f"images have shape {images.shape} and labels {part.shape}; expected (n, height, width, channels), or "
                "n byte strings, and n labels"
            )
    check_images(images)

    def read(index: Tensor) -> Any:
        return tf.nest.map_structure(lambda table: tf.gather(table, index), (images, labels))

    return Source(int(images.shape[0]), read)
