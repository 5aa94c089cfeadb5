"""Reading examples in parallel so that a file that cannot be decoded is named in the error."""

import os

import tensorflow as tf

BLOCK = 32  # examples; fewer would cost more an example, more would hold more files in memory
PARALLEL_CALLS = 8 * (os.cpu_count() or 1)  # AUTOTUNE takes many batches to find as many, and cores idle meanwhile


def guarded(
    source, work, batch_size, *, epochs, arrange=None, finish=None, shapes=None, seed=0, shuffle=False, first=0
):
    """Batches of `work(image, label, epoch, index)` of every example, in order, computed in parallel.

    With them, of `finish(*arrange(work(...), epoch, index))`: `arrange` computes on blocks of results at once what
    would cost each image dozens of small operations. These two also see the blank result that marks the end of an
    epoch, in which all numbers are one and all strings empty.

    TensorFlow's decoders fail without saying on what. Here an example that fails is left out first; the gap in the
    positions then tells which one it was, and the error is raised in its place.

    source: `Source` or `Stream`.  epochs: dataset of one int64 scalar.  first: position to begin at.
    shapes: to which the results are padded; default: they all have one shape.

    Raises: tf.errors.InvalidArgumentError naming the example, when the dataset is iterated.
    """
    order = {"seed": seed, "shuffle": shuffle}
    results = source.examples(epochs, first=first, **order)
    _, epoch, index, _, payload = results.element_spec

    def read(index, epoch, payload):
        return work(*source.take(index, payload), epoch, index)

    read = tf.function(read, autograph=False).get_concrete_function(index, epoch, payload)

    def attempt(position, epoch, index, end, payload):
        result = tf.cond(end, lambda: _blank(read.structured_outputs), lambda: read(index, epoch, payload))
        return position, epoch, end, (result, index) if arrange else result

    def block(position, epoch, end, item):
        result, index = item
        return position, epoch, end, arrange(result, epoch, index)

    def attempt_to_finish(position, epoch, end, item):
        return position, epoch, end, finish(*item)

    results = _attempted(results, attempt)
    if arrange:
        results = _attempted(_mapped(results.batch(BLOCK), block).prefetch(1).unbatch(), attempt_to_finish)

    def arrived(number, batch):
        position, epoch, end, _ = batch
        expected = first + number * batch_size + tf.range(tf.size(position, tf.int64))
        missing = tf.not_equal(position, expected)

        def complain():
            name = source.called(expected[tf.argmax(missing)], epoch[0], **order)
            reason = "it is missing, damaged, or no JPEG, PNG, GIF, BMP or WebP image"
            return tf.debugging.Assert(False, ["cannot read", name, reason])

        tf.cond(tf.reduce_any(missing), complain, tf.no_op)
        return ~end[0]

    def without_end(number, batch):
        _, _, end, item = batch
        count = tf.size(end) - tf.cast(end[-1], tf.int32)
        return tf.nest.map_structure(lambda tensor: tensor[:count], item)

    if shapes is None:
        shapes = tf.nest.map_structure(lambda spec: spec.shape, results.element_spec[-1])
    batches = results.padded_batch(batch_size, ([], [], [], shapes)).enumerate()
    return _mapped(batches.filter(tf.autograph.experimental.do_not_convert(arrived)), without_end)


def _mapped(dataset, function, **options):
    return dataset.map(tf.autograph.experimental.do_not_convert(function), **options)


def _attempted(dataset, function):
    """The results of the examples on which the function does not fail."""
    results = _mapped(dataset, function, num_parallel_calls=PARALLEL_CALLS, deterministic=True)
    return results.ignore_errors(log_warning=True)


def _blank(spec):
    """Ones, for they are a possible size and orientation, and empty strings."""

    def blank(tensor):
        shape = [n or 0 for n in tensor.shape]
        return tf.fill(shape, "") if tensor.dtype == tf.string else tf.ones(shape, tensor.dtype)

    return tf.nest.map_structure(blank, spec)
