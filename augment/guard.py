"""Reading examples in parallel so that a file that cannot be decoded is named in the error."""

import tensorflow as tf


def guarded(source, work, *, epochs, seed: int = 0, shuffle: bool = False, first=0) -> tf.data.Dataset:
    """`work(image, label, epoch, index)` of every example, in order, computed in parallel.

    TensorFlow's decoders fail without saying on what. Here an example that fails is left out first; the gap in the
    positions then tells which one it was, and the error is raised in its place.

    source: `Source` or `Stream`.  epochs: dataset of one int64 scalar.  first: position to begin at.

    Raises: tf.errors.InvalidArgumentError naming the example, when the dataset is iterated.
    """
    order = {"seed": seed, "shuffle": shuffle}
    examples = source.examples(epochs, first=first, **order)

    def read(index, epoch, payload):
        return work(*source.take(index, payload), epoch, index)

    _, epoch, index, _, payload = examples.element_spec
    read = tf.function(read, autograph=False).get_concrete_function(index, epoch, payload)

    @tf.autograph.experimental.do_not_convert
    def attempt(position, epoch, index, end, payload):
        result = tf.cond(end, lambda: _blank(read.structured_outputs), lambda: read(index, epoch, payload))
        return position, epoch, end, result

    @tf.autograph.experimental.do_not_convert
    def arrived(expected, item):
        position, epoch, end, _ = item

        def complain():
            name = source.called(expected, epoch, **order)
            reason = "it is missing, damaged, or no JPEG, PNG, GIF, BMP or WebP image"
            return tf.debugging.Assert(False, ["cannot read", name, reason])

        tf.cond(tf.equal(expected, position), tf.no_op, complain)
        return ~end

    results = examples.map(attempt, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    results = results.ignore_errors(log_warning=True).enumerate(first).filter(arrived)
    return results.map(lambda _, item: item[3])


def _blank(spec):
    def empty(tensor):
        shape = [n or 0 for n in tensor.shape]
        return tf.zeros(shape, tensor.dtype)

    return tf.nest.map_structure(empty, spec)
