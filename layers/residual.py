"""Find the residual branches of a functional model from its graph, not from names."""

import math
from dataclasses import dataclass

import keras

from .noise import drops_branches
from .stochastic_depth import StochasticResidual

SUMS = {"Add", "CustomScaleLayer"}
FAR = (math.inf, 0)


@dataclass(frozen=True)
class Branch:
    """One f(x) of a sum x + f(x): the call number of the sum in its model's graph, which of its inputs f(x) is, the
    operations that drop the whole of f(x) already, and the numbers of the calls that f(x) consists of."""

    call: int
    index: int
    droppers: tuple
    own: frozenset = frozenset()


def calls(model):
    """(operation, inputs, outputs) of every call in `model`'s graph, in the order in which `clone_model` goes."""
    return _run(model)[0]


def _run(model):
    """`calls`, and the outputs that `model` has in this run of its graph."""
    recorded = []

    def record(operation, *args, **kwargs):
        outputs = operation.compute_output_spec(*args, **kwargs)
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        recorded.append((operation, tensors, keras.tree.flatten(outputs)))
        return outputs

    outputs = model._run_through_graph(model.inputs, call_fn=record)
    return recorded, keras.tree.flatten(outputs)


def graph_of(operation):
    """The functional model that `operation` is, or, a built Sequential, holds; None if it has no graph."""
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.Model) and hasattr(operation, "_run_through_graph") else None


def residual_branches(model) -> list[Branch]:
    """Every f(x) of a sum x + f(x), or x + f(x) + g(x), of tensors of one shape, in the order of the graph.

    The shortcut is the summand that the other is computed from, or else the one that is nearest to what both come from:
    by no layer with a kernel, or by the one of a projection where the shape changes. A branch is farther, and what it
    computes on the way is used nowhere else (a feature pyramid's stages are). Sums of two like towers, or of functions
    of different inputs, are no residual sums.
    """
    graph, found = _Graph(model), []
    for number, (operation, inputs, _) in enumerate(graph.calls):
        if isinstance(operation, StochasticResidual):
            found.append(Branch(number, 0, (operation,)))
        elif _is_sum(operation, inputs):
            candidates = [_branches_beside(graph, number, inputs, shortcut) for shortcut in range(len(inputs))]
            found.extend(max(candidates, key=len))
    return found


def _branches_beside(graph, number, summands, shortcut):
    """The summands of call `number` that are residual branches if `shortcut` is the shortcut."""
    branches = []
    for index, tensor in enumerate(summands):
        way, short = graph.way(tensor), graph.way(summands[shortcut])
        distance, short_distance = graph.distance(tensor, way - short), graph.distance(summands[shortcut], short - way)
        is_nearer = (short_distance[0] == 0 or short_distance[1] <= 1) and short_distance < distance
        is_shortcut = index != shortcut and (short < way or is_nearer)
        if is_shortcut and distance < FAR and graph.is_closed(way - short, number):
            branches.append(Branch(number, index, tuple(graph.droppers(tensor, way - short)), way - short))
    return branches


class _Graph:
    """A model's calls and what each needs. Calls are numbered from 0, the model's inputs from -1 downwards."""

    def __init__(self, model):
        self.calls, self.outputs = _run(model)
        self.producer = {id(x): -1 - i for i, x in enumerate(model.inputs)}
        self.ways = {-1 - i: frozenset({-1 - i}) for i in range(len(model.inputs))}
        self.consumers = {}
        for number, (_, inputs, outputs) in enumerate(self.calls):
            self.ways[number] = frozenset({number}).union(*map(self.way, inputs))
            for x in inputs:
                self.consumers.setdefault(self.producer[id(x)], set()).add(number)
            self.producer.update((id(x), number) for x in outputs)

    def way(self, tensor):
        """The calls and inputs that `tensor` is computed from, its own call included."""
        return self.ways[self.producer[id(tensor)]]

    def distances(self, own, without=None):
        """{call of `own`: fewest layers with kernels on a path to it from outside `own`} for those that have a path,
        none through `without`. The model's inputs have none."""
        found = {}
        for number in sorted(number for number in own if number >= 0 and number != without):
            operation, inputs, _ = self.calls[number]
            before = [found.get(self.producer[id(x)]) if self.producer[id(x)] in own else 0 for x in inputs]
            if any(d is not None for d in before):
                found[number] = _kernels(operation) + min(d for d in before if d is not None)
        return found

    def distance(self, tensor, own):
        """(fewest layers with kernels on a path to `tensor` through `own`, those in `own`); `FAR` without a path."""
        if self.producer[id(tensor)] not in own:
            return 0, 0
        fewest = self.distances(own).get(self.producer[id(tensor)])
        return FAR if fewest is None else (fewest, sum(_kernels(self.calls[i][0]) for i in own if i >= 0))

    def is_closed(self, own, number):
        """Whether only `own` and call `number` use what `own` computes from outside."""
        return all(self.consumers.get(i, set()) <= own | {number} for i in self.distances(own))

    def droppers(self, tensor, own):
        """The operations in `own`, nested models searched too, that drop all that comes to `tensor` from outside."""
        for number in sorted(self.distances(own)):
            operation, inputs, outputs = self.calls[number]
            if self.producer[id(tensor)] != number and self.producer[id(tensor)] in self.distances(own, number):
                continue  # there is a way around it
            if graph_of(operation) is not None and len(outputs) == 1:
                inner = _Graph(graph_of(operation))
                (output,) = inner.outputs
                yield from inner.droppers(output, frozenset(i for i in inner.way(output) if i >= 0))
            elif drops_branches(operation) and not isinstance(operation, StochasticResidual) and len(inputs) == 1:
                yield operation


def _is_sum(operation, inputs):
    """Tensors of one shape, added: a layer Add, an operation +, or InceptionResNet's scaled sum."""
    distinct = len(inputs) > 1 and len({id(x) for x in inputs}) == len(inputs)
    return distinct and len({tuple(x.shape) for x in inputs}) == 1 and type(operation).__name__ in SUMS


def _kernels(operation):
    """How many of the layers that `operation` consists of have a weight of two dimensions or more, a kernel."""
    layers = operation._flatten_layers() if isinstance(operation, keras.layers.Layer) else ()
    own = ([*layer._trainable_variables, *layer._non_trainable_variables] for layer in layers)
    return sum(any(len(variable.shape) > 1 for variable in variables) for variables in own)
