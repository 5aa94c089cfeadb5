"""What the linear classifier at the end of a finished model sees: an embedding of the image."""

import keras

_FLIP = type(keras.ops.flip(keras.KerasTensor((1,)), 0)._keras_history.operation)  # Keras exports no name of it


def features_model(model: keras.Model) -> keras.Model | None:
    """Images → (batch, channels) that enter the layer "logits" of a classifier of `recipes`; sharing its weights.

    Of a mean over mirror images those of the image as it is; of a mean over several models those of all, concatenated.
    None where there is no such layer.
    """
    tensors = _inputs_of_logits(model)
    if not tensors:
        return None
    joined = keras.layers.Concatenate(name="features_of_all")(tensors) if len(tensors) > 1 else tensors[0]
    return keras.Model(model.inputs, joined, name="features")


def _inputs_of_logits(model: keras.Model) -> list:
    nodes = [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]
    direct = [
        n.input_tensors[0]
        for n in nodes
        if isinstance(n.operation, keras.layers.Dense) and n.operation.name == "logits"
    ]
    if direct:
        return direct[:1]
    found = []
    members = [operation for operation in model.operations if isinstance(operation, keras.Model)]
    for member in sorted(members, key=_number):
        inner = _inputs_of_logits(member)
        if inner:
            images = next(node.input_tensors for node in nodes if node.operation is member and not _mirrored(node))
            outputs = keras.Model(member.inputs, inner)(images)
            found += outputs if isinstance(outputs, list | tuple) else [outputs]
    return found


def _mirrored(node) -> bool:
    return any(isinstance(tensor._keras_history.operation, _FLIP) for tensor in node.input_tensors)


def _number(member: keras.Model) -> int:
    """3 of "member_3"."""
    return int("0" + member.name.rpartition("_")[2]) if member.name[-1:].isdecimal() else 0
