"""What a pipeline reads from: random access where it can be had, a stream otherwise."""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from augment.draws import bits
from augment.policy import PolicyError

SHUFFLE_BUFFER = 1024  # examples held back to shuffle a stream; a Source is shuffled as a whole at no cost


@dataclass(frozen=True)
class Source:
    """A dataset with random access.

    size: number of examples.
    read: TensorFlow function from an int64 scalar index to (encoded bytes | image (height, width, 1|3|4), label).
    name: TensorFlow function from the index to what the example is called in errors.
    """

    size: int
    read: Callable
    name: Callable | None = None

    def called(self, index) -> tf.Tensor:
        """The example's name, a string scalar."""
        return self.name(index) if self.name else tf.strings.format("example {}", index)

    @property
    def element_spec(self):
        """TensorSpecs of (image, label)."""
        return tf.data.Dataset.range(1).map(self.read).element_spec

    def examples(self, epochs, *, seed: int, shuffle: bool, first) -> tf.data.Dataset:
        """(position, epoch, index) from position `first` on; after the last one more, with position == size."""

        def shuffled(position, epoch):
            seeds = tf.cast(tf.stack([seed % 2**31, epoch % 2**31]), tf.int32)
            inside = tf.minimum(position, self.size - 1)
            return tf.random.experimental.index_shuffle(inside, seeds, max_index=self.size - 1)

        def example(position, epoch):
            return position, epoch, shuffled(position, epoch) if shuffle and self.size > 1 else position

        positions = tf.data.Dataset.range(first, self.size + 1)
        return tf.data.Dataset.zip(positions, epochs.repeat()).map(example)


def from_arrays(images, labels) -> Source:
    """Images (n, height, width, channels), or n encoded byte strings, with n labels."""
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if images.shape.rank not in (1, 4) or images.shape[0] != labels.shape[0]:
        raise PolicyError(
            f"images have shape {images.shape} and labels {labels.shape}; expected (n, height, width, channels), or n "
            "byte strings, and n labels"
        )
    return Source(int(images.shape[0]), lambda index: (tf.gather(images, index), tf.gather(labels, index)))
