"""What the linear classifier at the end of a finished model sees: an embedding of the image."""

import keras


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
    found, seen = [], set()
    for node in nodes:  # of each member only the first look, which is at the image as it is
        member = node.operation
        if isinstance(member, keras.Model) and id(member) not in seen:
            seen.add(id(member))
            inner = _inputs_of_logits(member)
            if inner:
                outputs = keras.Model(member.inputs, inner)(node.input_tensors)
                found += outputs if isinstance(outputs, list | tuple) else [outputs]
    return found
