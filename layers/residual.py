"""Find the residual branches of a functional model from its graph, not from names."""

from dataclasses import dataclass

import keras

from layers.stochastic_depth import StochasticResidual


@dataclass(frozen=True)
class Branch:
    """One sum x + f(x): the call number of the sum in its model's graph, and which of its two inputs is f(x)."""

    call: int
    index: int
    producer: object  # the operation that f ends in


def calls(model):
    """(operation, inputs, outputs) of every call in `model`'s graph, in the order in which `clone_model` goes."""
    recorded = []

    def record(operation, *args, **kwargs):
        outputs = operation.compute_output_spec(*args, **kwargs)
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        recorded.append((operation, tensors, keras.tree.flatten(outputs)))
        return outputs

    model._run_through_graph(model.inputs, call_fn=record)
    return recorded


def graph_of(operation):
    """The functional model that `operation` is, or, a built Sequential, holds; None if it has no graph."""
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.Model) and hasattr(operation, "_run_through_graph") else None


def residual_branches(model) -> list[Branch]:
    """Every sum of two tensors of one shape of which one is the other's shortcut, in the order of the graph.

    Shortcut and branch begin at a common tensor. What lies on the way to one and not on the way to the other is its own
    part. The branch is the one with more weighted layers in its own part; the shortcut has at most one kernel there
    (the projection where the shape changes). Sums of two like towers are no residual sums.
    """
    recorded = calls(model)
    producer, ancestors, found = {}, {}, []
    for number, (operation, inputs, outputs) in enumerate(recorded):
        own = frozenset({number}).union(*(ancestors.get(id(x), frozenset()) for x in inputs))
        for x in outputs:
            producer[id(x)], ancestors[id(x)] = number, own
        if isinstance(operation, StochasticResidual):
            found.append(Branch(number, 0, operation))
        if not _is_sum(operation, inputs):
            continue
        ways = [ancestors.get(id(x), frozenset()) for x in inputs]
        kernels = [sum(_kernels(recorded[i][0]) for i in way - other) for way, other in (ways, ways[::-1])]
        index = int(kernels[1] > kernels[0])
        if kernels[index] > kernels[1 - index] <= 1:
            found.append(Branch(number, index, recorded[producer[id(inputs[index])]][0]))
    return found


def _is_sum(operation, inputs):
    """Two tensors of one shape, added: a layer Add, an operation +, or InceptionResNet's scaled sum."""
    name = type(operation).__name__
    same = len(inputs) == 2 and tuple(inputs[0].shape) == tuple(inputs[1].shape) and inputs[0] is not inputs[1]
    return same and name in {"Add", "CustomScaleLayer"}


def _kernels(operation):
    """How many weights of two dimensions or more, kernels, `operation` holds; scales and biases do not count."""
    return sum(len(variable.shape) > 1 for variable in getattr(operation, "weights", ()))
