"""Read examples in parallel, and raise an error that names a file that cannot be decoded."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from .source import Source, Stream
from .tensors import Tensor

BLOCK = 32  # examples per block; smaller blocks cost more time per example, larger ones keep more files in memory
PARALLEL_CALLS = 8 * (os.cpu_count() or 1)  # AUTOTUNE finds this number too slowly
_GRAPH_NOISE = (
    r"\{\{function_node [^}]*\}\} ?|Error in user-defined function passed to .*? iterator: \S*: |\n\t \[\[.*| \[Op:.*"
)
_ASSERTION = r"^.*?(?:assertion failed: \[|Summarized data: b')(.*?)['\]]?$"


@dataclass(frozen=True, eq=False)
class Order:
    """Define the order in which the examples of a source are read.

    Attributes:
        epochs: Dataset of one int64 scalar.
        seed: Seed of the shuffling.
        shuffle: Whether to shuffle.
        first: Position to begin at.
    """

    epochs: tf.data.Dataset
    seed: int = 0
    shuffle: bool = False
    first: Tensor = 0

    def examples(self, source: Source | Stream) -> tf.data.Dataset:
        """Return `source.examples` in this order."""
        return source.examples(self.epochs, seed=self.seed, shuffle=self.shuffle, first=self.first)


@dataclass(frozen=True, eq=False)
class Work:
    """Define the computation for an example, in one function or three.

    With `arrange` and `finish`, the result is `finish(*arrange(read(...), epoch, index))`. `arrange` computes on blocks
    of results, which replaces dozens of small operations for each image. Both functions also get the blank result that
    marks the end of an epoch; its numbers are one and its strings empty.

    Attributes:
        read: (image, label, epoch, index) → result.
        arrange: (results, epochs, indices) → tuple, on blocks of results.
        finish: The elements of the tuple from `arrange` for one example → result.
        shapes: Shapes to which the results are padded; default: all results have one shape.
    """

    read: Callable[..., Any]
    arrange: Callable[..., Any] | None = None
    finish: Callable[..., Any] | None = None
    shapes: Any = None


def guarded(source: Source | Stream, work: Work, order: Order, batch_size: int) -> tf.data.Dataset:
    """Return batches of `work` on every example, in order, computed in parallel.

    TensorFlow's decoders do not report which example fails. Therefore a failing example is first left out. The gap in
    the positions shows which example failed, and this example is read again to find the reason.

    Raises:
        tf.errors.InvalidArgumentError: If an example fails while the dataset is iterated. The message names the
            example.
    """
    return _Guarded(source, work, order, batch_size).batches()


class _Guarded:
    def __init__(self, source: Source | Stream, work: Work, order: Order, batch_size: int):
        self.source, self.work, self.order, self.batch_size = source, work, order, batch_size
        self.examples = order.examples(source)
        spec: Any = self.examples.element_spec
        _, epoch, index, _, payload = spec

        self.traced = tf.function(self._read, autograph=False).get_concrete_function(index, epoch, payload)

    def _read(self, index: Tensor, epoch: Tensor, payload: Any) -> Any:
        return self.work.read(*self.source.take(index, payload), epoch, index)

    def batches(self) -> tf.data.Dataset:
        found = self._results(self.examples, self.traced, lambda dataset: dataset.ignore_errors(log_warning=True))
        shapes = self.work.shapes
        if shapes is None:
            shapes = tf.nest.map_structure(lambda spec: spec.shape, found.element_spec[-1])
        batches = found.padded_batch(self.batch_size, ([], [], [], shapes)).enumerate()
        return _mapped(batches.filter(tf.autograph.experimental.do_not_convert(self._check)), _without_end)

    def _results(
        self, examples: Any, read: Callable[..., Any], select: Callable[[Any], Any] = lambda dataset: dataset
    ) -> Any:
        """Return (position, epoch, end, result) of the examples; `select` is applied after each parallel part."""
        work = self.work

        def attempt(position: Tensor, epoch: Tensor, index: Tensor, end: Tensor, payload: Any) -> Any:
            blank = lambda: _blank(self.traced.structured_outputs)  # noqa: E731
            result = tf.cond(end, blank, lambda: read(index, epoch, payload))
            return position, epoch, end, (result, index) if work.arrange else result

        in_order = {"num_parallel_calls": PARALLEL_CALLS, "deterministic": True}
        attempted = select(_mapped(examples, attempt, **in_order))
        arrange, finish = work.arrange, work.finish
        if arrange is None or finish is None:
            return attempted

        def block(position: Tensor, epoch: Tensor, end: Tensor, item: Any) -> Any:
            result, index = item
            return position, epoch, end, arrange(result, epoch, index)

        def attempt_to_finish(position: Tensor, epoch: Tensor, end: Tensor, item: Any) -> Any:
            return position, epoch, end, finish(*item)

        blocks = _mapped(attempted.batch(BLOCK), block).prefetch(1).unbatch()
        return select(_mapped(blocks, attempt_to_finish, **in_order))

    def _check(self, number: Tensor, batch: Any) -> Tensor:
        """Raise an error in the graph if an example of the batch is missing; return whether the epoch continues."""
        position, epoch, end, _ = batch
        expected = self.order.first + number * self.batch_size + tf.range(tf.size(position, tf.int64))
        missing = tf.not_equal(position, expected)

        def complain() -> Any:
            # The dataset has no state, because datasets with state cannot be saved.
            where = (expected[tf.argmax(missing)], epoch[0])
            return tf.debugging.Assert(False, [tf.numpy_function(self._reason, where, tf.string, stateful=False)])

        tf.cond(tf.reduce_any(missing), complain, tf.no_op)
        return ~end[0]

    def _reason(self, position: Tensor, epoch: Tensor) -> str:
        once = tf.data.Dataset.from_tensors(tf.constant(epoch))
        example = replace(self.order, epochs=once, first=position).examples(self.source).take(1)
        return _failure(self.source, example, lambda example: self._results(example, self._read), position)


def _without_end(number: Tensor, batch: Any) -> Any:
    """Return the results of a batch without the blank result that marks the end."""
    _, _, end, item = batch
    count = tf.size(end) - tf.cast(end[-1], tf.int32)
    return tf.nest.map_structure(lambda tensor: tensor[:count], item)


def _failure(
    source: Source | Stream, example: tf.data.Dataset, results: Callable[[tf.data.Dataset], Any], position: Tensor
) -> str:
    """Return the name of a failed example and the reason, after reading this example again alone.

    Args:
        source: where the example comes from.
        example: dataset of the failed element of `source.examples`.
        results: the pipeline that fails on the example.
        position: the example's position in the epoch.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2  # all shared threads may be waiting for this answer
    name = f"the example at position {position}"
    try:
        for _, _, index, *_ in example.with_options(options):
            name = source.called(index).numpy().decode()
        for _ in results(example).with_options(options):
            pass
    except tf.errors.OpError as error:
        return f"cannot read {name}: {reason_of(error)}"
    except Exception as error:  # reading again failed for a reason that does not concern the example
        return f"cannot read {name}; reading it again to find the reason failed, too ({type(error).__name__}: {error})"
    return f"example {position} failed once, then succeeded; check that the dataset does not change"


def reason_of(error: tf.errors.OpError) -> str:
    """Return the reason in TensorFlow's error message, without the names of its internals."""
    text = re.sub(_GRAPH_NOISE, "", error.message, flags=re.S).strip()
    return re.sub(_ASSERTION, r"\1", text, flags=re.S)


def _mapped(dataset, function, **options):
    return dataset.map(tf.autograph.experimental.do_not_convert(function), **options)


def _blank(spec: Any) -> Any:
    """Return empty strings and ones, which are a valid size and orientation."""

    def blank(tensor: Any) -> Tensor:
        shape = [n or 0 for n in tensor.shape]
        return tf.fill(shape, "") if tensor.dtype == tf.string else tf.ones(shape, tensor.dtype)

    return tf.nest.map_structure(blank, spec)
