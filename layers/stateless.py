"""Call a layer with other values in place of its variables."""

import keras


def call_with(layer, values, *args, **kwargs):
    """Call `layer` with `values` {id(variable): tensor} in place of those variables; gradients flow to the tensors.

    Nothing is assigned, so the call may stand inside a `cond` on every backend.
    Returns the outputs, the new value of each of `layer.variables`, and the losses that the call added.
    """
    mapping = [(v, values.get(id(v), keras.ops.convert_to_tensor(v))) for v in layer.variables]
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
        outputs = layer(*args, **kwargs)
    return outputs, [scope.get_current_value(v) for v in layer.variables], list(scope.losses)


def call_assigning(layer, values, *args, **kwargs):
    """`call_with`, then keep what the call changed: statistics, seeds. Returns the outputs and the added losses."""
    outputs, updates, losses = call_with(layer, values, *args, **kwargs)
    for variable, update in zip(layer.variables, updates, strict=True):
        if not variable.trainable and id(variable) not in values:
            variable.assign(update)
    return outputs, losses
