"""Find the residual branches of a functional model by its graph, not by names."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from .noise import drops_branches
from .stochastic_depth import StochasticResidual
from .tensors import tree

SUMS = {"Add", "CustomScaleLayer"}
FAR = (math.inf, 0)


@dataclass(frozen=True)
class Branch:
    """Hold one f(x) of a sum x + f(x).

    Attributes:
        call: The number of the sum's call in its model's graph.
        index: The index of f(x) among the inputs of the sum.
        droppers: The existing operations that drop all of f(x).
        own: The numbers of the calls that f(x) consists of.
    """

    call: int
    index: int
    droppers: tuple[keras.Operation, ...]
    own: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Call:
    """Hold one call in the graph of a model."""

    operation: Any  # a keras.Operation, typed as Any because private methods are used, too
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def calls(model: keras.Model) -> list[Call]:
    """Return every call in `model`'s graph, in the order of `clone_model`."""
    return _run(model)[0]


def _run(model: keras.Model) -> tuple[list[Call], list[keras.KerasTensor]]:
    """Return the calls and the outputs of `model` in one run of its graph."""
    recorded: list[Call] = []

    def record(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        outputs = operation.compute_output_spec(*args, **kwargs)
        tensors = [x for x in tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        recorded.append(Call(operation, tensors, tree.flatten(outputs)))
        return outputs

    outputs = model._run_through_graph(model.inputs, call_fn=record)
    return recorded, tree.flatten(outputs)


def graph_of(operation: keras.Operation) -> keras.Model | None:
    """Return the functional model that `operation` is or, for a built Sequential, contains; None without a graph."""
    if isinstance(operation, keras.Sequential):
        return operation._functional
    return operation if isinstance(operation, keras.Model) and hasattr(operation, "_run_through_graph") else None


def residual_branches(model: keras.Model) -> list[Branch]:
    """Return every f(x) of a sum x + f(x) or x + f(x) + g(x) of equal shapes, in graph order.

    The shortcut is the summand from which the other one is computed. If there is none, the shortcut is the summand
    nearest to the common origin, with no layer with a kernel on its path, or only a projection that changes the shape.
    A branch is farther from the origin, and no other call uses its intermediate results, as a feature pyramid would.
    Sums of two similar towers, or of functions of different inputs, are not residual sums.
    """
    graph, found = _Graph(model), []
    for number, call in enumerate(graph.calls):
        if isinstance(call.operation, StochasticResidual):
            found.append(Branch(number, 0, (call.operation,)))
        elif _is_sum(call):
            candidates = [_branches_beside(graph, number, shortcut) for shortcut in range(len(call.inputs))]
            found.extend(max(candidates, key=len))
    return found


def _branches_beside(graph: "_Graph", number: int, shortcut: int) -> list[Branch]:
    """Return the summands of call `number` that are residual branches for the shortcut at the given index."""
    branches, summands = [], graph.calls[number].inputs
    for index, tensor in enumerate(summands):
        way, short = graph.way(tensor), graph.way(summands[shortcut])
        distance, short_distance = graph.distance(tensor, way - short), graph.distance(summands[shortcut], short - way)
        is_nearer = (short_distance[0] == 0 or short_distance[1] <= 1) and short_distance < distance
        is_shortcut = index != shortcut and (short < way or is_nearer)
        if is_shortcut and distance < FAR and graph.is_closed(way - short, number):
            branches.append(Branch(number, index, tuple(graph.droppers(tensor, way - short)), way - short))
    return branches


class _Graph:
    """Hold a model's calls and dependencies; calls are numbered from 0, inputs from -1 downwards."""

    def __init__(self, model: keras.Model):
        self.calls, self.outputs = _run(model)
        self.producer = {id(x): -1 - i for i, x in enumerate(model.inputs)}
        self.ways = {-1 - i: frozenset({-1 - i}) for i in range(len(model.inputs))}
        self.consumers: dict[int, set[int]] = {}
        for number, call in enumerate(self.calls):
            self.ways[number] = frozenset({number}).union(*map(self.way, call.inputs))
            for x in call.inputs:
                self.consumers.setdefault(self.producer[id(x)], set()).add(number)
            self.producer.update((id(x), number) for x in call.outputs)

    def way(self, tensor: keras.KerasTensor) -> frozenset[int]:
        """Return the calls and inputs from which `tensor` is computed, including its own call."""
        return self.ways[self.producer[id(tensor)]]

    def distances(self, own: frozenset[int], without: int | None = None) -> dict[int, int]:
        """Return the fewest layers with kernels on a path from outside `own` to each call of `own`.

        Paths through the call `without` do not count. The model's inputs have no path.
        """
        found: dict[int, int] = {}
        for number in sorted(number for number in own if number >= 0 and number != without):
            call = self.calls[number]
            before = [found.get(self.producer[id(x)]) if self.producer[id(x)] in own else 0 for x in call.inputs]
            if any(d is not None for d in before):
                found[number] = _kernels(call.operation) + min(d for d in before if d is not None)
        return found

    def distance(self, tensor: keras.KerasTensor, own: frozenset[int]) -> tuple[float, int]:
        """Return the fewest layers with kernels on a path to `tensor` through `own`, and how many of them are in `own`.

        The result is `FAR` if there is no path.
        """
        if self.producer[id(tensor)] not in own:
            return 0, 0
        fewest = self.distances(own).get(self.producer[id(tensor)])
        return FAR if fewest is None else (fewest, sum(_kernels(self.calls[i].operation) for i in own if i >= 0))

    def is_closed(self, own: frozenset[int], number: int) -> bool:
        """Return whether only `own` and call `number` use what `own` computes from outside."""
        return all(self.consumers.get(i, set()) <= own | {number} for i in self.distances(own))

    def droppers(self, tensor: keras.KerasTensor, own: frozenset[int]) -> Iterator[keras.Operation]:
        """Yield the operations in `own`, also in nested models, that drop all input of `tensor` from outside `own`."""
        for number in sorted(self.distances(own)):
            call = self.calls[number]
            if self.producer[id(tensor)] != number and self.producer[id(tensor)] in self.distances(own, number):
                continue  # another path avoids this operation
            nested = graph_of(call.operation)
            if nested is not None and len(call.outputs) == 1:
                inner = _Graph(nested)
                (output,) = inner.outputs
                yield from inner.droppers(output, frozenset(i for i in inner.way(output) if i >= 0))
            elif isinstance(call.operation, StochasticResidual) or len(call.inputs) != 1:
                continue
            elif drops_branches(call.operation):
                yield call.operation


def _is_sum(call: Call) -> bool:
    """Return whether an operation adds equal shapes: an Add layer, the operator + or InceptionResNet's scaled sum."""
    distinct = len(call.inputs) > 1 and len({id(x) for x in call.inputs}) == len(call.inputs)
    return distinct and len({tuple(x.shape) for x in call.inputs}) == 1 and type(call.operation).__name__ in SUMS


def _kernels(operation: keras.Operation) -> int:
    """Return the number of layers of `operation` that have a kernel, a weight of two or more dimensions."""
    layers = operation._flatten_layers() if isinstance(operation, keras.layers.Layer) else []
    own = ([*layer._trainable_variables, *layer._non_trainable_variables] for layer in layers)
    return sum(any(len(variable.shape) > 1 for variable in variables) for variables in own)
