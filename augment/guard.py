"""Reading examples in parallel so that a file that cannot be decoded is named in the error."""

import os
import re

import tensorflow as tf

BLOCK = 32  # examples; fewer would cost more an example, more would hold more files in memory
PARALLEL_CALLS = 8 * (os.cpu_count() or 1)  # AUTOTUNE takes many batches to find as many, and cores idle meanwhile
_GRAPH_NOISE = (
    r"\{\{function_node [^}]*\}\} ?|Error in user-defined function passed to .*? iterator: \S*: |\n\t \[\[.*| \[Op:.*"
)
_ASSERTION = r"^.*?(?:assertion failed: \[|Summarized data: b')(.*?)['\]]?$"


def guarded(
    source, work, batch_size, *, epochs, arrange=None, finish=None, shapes=None, seed=0, shuffle=False, first=0
):
    """Batches of `work(image, label, epoch, index)` of every example, in order, computed in parallel.

    With them, of `finish(*arrange(work(...), epoch, index))`: `arrange` computes on blocks of results at once what
    would cost each image dozens of small operations. These two also see the blank result that marks the end of an
    epoch, in which all numbers are one and all strings empty.

    TensorFlow's decoders fail without saying on what. Here an example that fails is left out first; the gap in the
    positions then tells which one it was, and it is read again to find out why.

    source: `Source` or `Stream`.  epochs: dataset of one int64 scalar.  first: position to begin at.
    shapes: to which the results are padded; default: they all have one shape.

    Raises: tf.errors.InvalidArgumentError naming the example, when the dataset is iterated.
    """
    order = {"seed": seed, "shuffle": shuffle}
    examples = source.examples(epochs, first=first, **order)
    _, epoch, index, _, payload = examples.element_spec

    def read(index, epoch, payload):
        return work(*source.take(index, payload), epoch, index)

    traced = tf.function(read, autograph=False).get_concrete_function(index, epoch, payload)

    def block(position, epoch, end, item):
        result, index = item
        return position, epoch, end, arrange(result, epoch, index)

    def attempt_to_finish(position, epoch, end, item):
        return position, epoch, end, finish(*item)

    def results(examples, read, kept=lambda dataset: dataset):
        def attempt(position, epoch, index, end, payload):
            result = tf.cond(end, lambda: _blank(traced.structured_outputs), lambda: read(index, epoch, payload))
            return position, epoch, end, (result, index) if arrange else result

        in_order = {"num_parallel_calls": PARALLEL_CALLS, "deterministic": True}
        attempted = kept(_mapped(examples, attempt, **in_order))
        if arrange:
            blocks = _mapped(attempted.batch(BLOCK), block).prefetch(1).unbatch()
            attempted = kept(_mapped(blocks, attempt_to_finish, **in_order))
        return attempted

    def what_failed(position, epoch) -> str:
        once = tf.data.Dataset.from_tensors(tf.constant(epoch))
        example = source.examples(once, first=position, **order).take(1)
        return _failure(source, example, lambda example: results(example, read), position)

    def arrived(number, batch):
        position, epoch, end, _ = batch
        expected = first + number * batch_size + tf.range(tf.size(position, tf.int64))
        missing = tf.not_equal(position, expected)

        def complain():
            # Without state, for datasets with state cannot be saved.
            where = (expected[tf.argmax(missing)], epoch[0])
            return tf.debugging.Assert(False, [tf.numpy_function(what_failed, where, tf.string, stateful=False)])

        tf.cond(tf.reduce_any(missing), complain, tf.no_op)
        return ~end[0]

    def without_end(number, batch):
        _, _, end, item = batch
        count = tf.size(end) - tf.cast(end[-1], tf.int32)
        return tf.nest.map_structure(lambda tensor: tensor[:count], item)

    found = results(examples, traced, lambda dataset: dataset.ignore_errors(log_warning=True))
    if shapes is None:
        shapes = tf.nest.map_structure(lambda spec: spec.shape, found.element_spec[-1])
    batches = found.padded_batch(batch_size, ([], [], [], shapes)).enumerate()
    return _mapped(batches.filter(tf.autograph.experimental.do_not_convert(arrived)), without_end)


def _failure(source, example, results, position) -> str:
    """What an example that failed is called, and why it fails: it is tried once more, alone.

    example: dataset of that element of `source.examples`.  results: the pipeline that fails on it.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2  # the common threads may all wait for this answer
    name = f"the example at position {position}"
    try:
        for _, _, index, *_ in example.with_options(options):
            name = source.called(index).numpy().decode()
        for _ in results(example).with_options(options):
            pass
    except tf.errors.OpError as error:
        return f"cannot read {name}: {reason_of(error)}"
    except Exception as error:  # of reading it again, and none of the example's
        return f"cannot read {name}; it could not be read again to tell why ({type(error).__name__}: {error})"
    return f"cannot read the example at position {position}; read again, it did not fail: does the dataset change?"


def reason_of(error: tf.errors.OpError) -> str:
    """Return what is wrong by TensorFlow's message, without the names of its internals."""
    text = re.sub(_GRAPH_NOISE, "", error.message, flags=re.S).strip()
    return re.sub(_ASSERTION, r"\1", text, flags=re.S)


def _mapped(dataset, function, **options):
    return dataset.map(tf.autograph.experimental.do_not_convert(function), **options)


def _blank(spec):
    """Ones, for they are a possible size and orientation, and empty strings."""

    def blank(tensor):
        shape = [n or 0 for n in tensor.shape]
        return tf.fill(shape, "") if tensor.dtype == tf.string else tf.ones(shape, tensor.dtype)

    return tf.nest.map_structure(blank, spec)
