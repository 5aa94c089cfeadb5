"""Update many variables at once; small ones share a flat vector, so a few operations replace hundreds."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import keras

from .parameters import dense, is_kernel
from .schedules import current_rate
from .tensors import LearningRate, Tensor, ops

LARGEST_FUSED = 16_384
"""Largest number of elements: above it, copying into a shared vector costs more than it saves."""


@dataclass(frozen=True)
class _Group:
    """Hold the indices of variables that are updated together, their shared slots, and their rate multiplier."""

    members: tuple[int, ...]
    sizes: tuple[int, ...]
    dtype: str
    decays: bool
    rate: float
    slots: tuple[keras.Variable, ...]


class MultiTensorOptimizer(keras.optimizers.Optimizer):
    """Make a Keras optimizer from a rule (gradient, slots, rate, step) → (change, new slots); x ← x − change.

    Subclasses name their `slots` and define `rule`, an elementwise function of `keras.ops` tensors. Variables of at
    most 16,384 elements are flattened into one vector per kind; a large variable is a group by itself. Weight decay is
    decoupled (Loshchilov and Hutter, 2019), x ← x − α λ x, and by default skips biases and normalisation parameters.
    Slots and arithmetic of 16-bit variables are in float32. A sparse gradient is first made dense, so that clipping and
    the slots of rows without a gradient are the same as for a dense gradient.

    Args:
        learning_rate: α, a float, a callable, or a schedule, which counts updates and not accumulated micro-batches.
        weight_decay: λ per unit of learning rate, or None.
        decay_biases: whether weight decay also applies to biases and normalisation parameters.
        name: the optimizer's name; default: the class name in snake case, numbered as Keras does.
        **options: options of `keras.optimizers.Optimizer`: clipnorm, clipvalue, global_clipnorm, loss_scale_factor,
            gradient_accumulation_steps, use_ema, ema_momentum, ema_overwrite_frequency.
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        *,
        weight_decay: float | None = None,
        decay_biases: bool = False,
        name: str | None = None,
        **options: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **options)
        self.decay_biases = decay_biases
        self.multipliers: Sequence[float] | None = None
        """Multipliers of the learning rate, one for each variable by index (see Discriminative); None if all are 1."""
        self._groups = _Untracked()

    def rule(
        self, gradient: Tensor, slots: Sequence[Tensor], rate: Any, step: Tensor
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the change to subtract and the new slots; `step` counts from 1, in the gradient's dtype."""
        raise NotImplementedError(
            f"{type(self).__name__} has no rule(gradient, slots, rate, step). Define this method in the subclass."
        )

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        together = defaultdict(list)
        for i, variable in enumerate(variables):
            if getattr(variable, "overwrite_with_gradient", False):
                continue  # Keras assigns these attributes
            alone = math.prod(variable.shape) > LARGEST_FUSED or keras.distribution.distribution() is not None
            rate = self.multipliers[i] if self.multipliers else 1.0
            together[_dtype(variable), self._decays(variable), rate, i if alone else None].append(i)
        self._groups = _Untracked(
            self._group(i, members, variables, *key[:3]) for i, (key, members) in enumerate(together.items())
        )

    def _decays(self, variable: Any) -> bool:
        return self.weight_decay is not None and (
            (self.decay_biases or is_kernel(variable)) and self._use_weight_decay(variable)
        )

    def _group(
        self, number: int, members: Sequence[int], variables: Sequence[Any], dtype: str, decays: bool, rate: Any
    ) -> _Group:
        sizes = tuple(math.prod(variables[i].shape) for i in members)
        if len(members) == 1 and dtype == variables[members[0]].dtype:
            slots = tuple(self.add_variable_from_reference(variables[members[0]], name) for name in self.slots)
        else:
            shape = variables[members[0]].shape if len(members) == 1 else (sum(sizes),)
            # Names have numbers, because a legacy .h5 file needs a separate path for every variable.
            slots = tuple(self.add_variable(shape, dtype=dtype, name=f"{name}_{number}") for name in self.slots)
        return _Group(tuple(members), sizes, dtype, decays, rate, slots)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        super().apply([dense(gradient) for gradient in grads], trainable_variables)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        self._update([gradient], [variable], learning_rate)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Tensor
    ) -> None:
        # Keras's method sums over replicas, then calls `_backend_update_step`
        if keras.backend.backend() == "tensorflow":
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            self._update(grads, trainable_variables, learning_rate)

    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Iterable[tuple[Any, Any]], learning_rate: Tensor
    ) -> None:
        grads, variables = (list(column) for column in zip(*grads_and_vars, strict=True))
        # `update` runs once per replica with every argument replaced by that replica's copy.
        distribution.extended.update(
            variables[0],
            lambda first, grads, others, rate: self._update(grads, [first, *others], rate),
            args=(grads, variables[1:], learning_rate),
            group=False,
        )

    def _update(self, gradients: Sequence[Any], variables: Sequence[Any], rate: Any) -> None:
        pairs = {self._get_variable_index(v): (g, v) for g, v in zip(gradients, variables, strict=True)}
        for group in self._groups:
            present = [i for i in group.members if i in pairs]
            if len(present) == len(group.members):
                slots = [slot.value for slot in group.slots]
                for slot, value in zip(group.slots, self._change(group, present, pairs, slots, rate), strict=True):
                    slot.assign(value)
            elif present:
                self._update_some(group, present, pairs, rate)

    def _update_some(
        self, group: _Group, present: Sequence[int], pairs: Mapping[int, tuple[Tensor, Any]], rate: Any
    ) -> None:
        """Update the variables `present`; those without a gradient keep their values and slots."""
        pieces = [dict(zip(group.members, _split(slot.value, group.sizes), strict=True)) for slot in group.slots]
        old = [ops.concatenate([piece[i] for i in present]) for piece in pieces]
        sizes = [math.prod(pairs[i][1].shape) for i in present]
        new = self._change(group, present, pairs, old, rate)
        for slot, piece, value in zip(group.slots, pieces, new, strict=True):
            piece.update(zip(present, _split(value, sizes), strict=True))
            slot.assign(ops.concatenate([piece[i] for i in group.members]))

    def _change(
        self,
        group: _Group,
        present: Sequence[int],
        pairs: Mapping[int, tuple[Tensor, Any]],
        slots: Sequence[Tensor],
        rate: Any,
    ) -> Sequence[Tensor]:
        """Update the variables `present` in place, and return their new slots."""
        gradients, variables = zip(*(pairs[i] for i in present), strict=True)
        flat = len(group.members) > 1
        iterations: Any = self.iterations
        gradient = ops.cast(_concatenated(gradients, flat), group.dtype)
        rate, step = ops.cast(rate, group.dtype), ops.cast(iterations + 1, group.dtype)
        if group.rate != 1:
            rate = rate * group.rate
        change, slots = self.rule(gradient, slots, rate, step)
        if group.decays:
            change = change + rate * self.weight_decay * ops.cast(_concatenated(variables, flat), group.dtype)
        parts = _split(change, [math.prod(variable.shape) for variable in variables]) if flat else [change]
        for variable, part in zip(variables, parts, strict=True):
            self.assign_sub(variable, ops.cast(ops.reshape(part, variable.shape), variable.dtype))
        return slots

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Do nothing, because weight decay is part of the change and uses its rate."""

    def _get_current_learning_rate(self) -> Tensor:
        return current_rate(self)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay_biases": self.decay_biases}


class _Untracked(tuple[_Group, ...]):
    """Hold groups in a tuple that Keras neither wraps nor searches for variables."""


def _dtype(variable: Any) -> str:
    """Return the type of slots and arithmetic, never 16 bits, where squares of gradients and ε = 1e-8 would be 0."""
    return "float32" if variable.dtype in ("float16", "bfloat16") else variable.dtype


def _concatenated(tensors: Sequence[Any], flat: bool) -> Tensor:
    """Return all tensors as one flat vector; a single tensor keeps its shape."""
    tensors = [ops.convert_to_tensor(tensor) for tensor in tensors]
    return ops.concatenate([ops.reshape(tensor, (-1,)) for tensor in tensors]) if flat else tensors[0]


def _split(vector: Any, sizes: Sequence[int]) -> list[Any]:
    """Split a vector into parts of these sizes; TensorFlow and torch cannot split into a single part."""
    return ops.split(vector, list(accumulate(sizes))[:-1]) if len(sizes) > 1 else [vector]
