"""Average the weights during training, and evaluate and save the average instead of the last weights."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from .reestimation import check_batches, check_reestimation_data, reestimate, trainable_normalisations
from .weight_average import AveragingOptimizer, WeightAverage


class WeightAveraging(keras.callbacks.Callback):
    """Average the weights by a callback that evaluates and saves the average.

    The average replaces the weights during evaluation, at the ends of epochs and after training. Averaging is part of
    the compiled training step: during `fit`, the model's optimizer is wrapped, and every update of the weights also
    updates the average. Put the callback first, so that `ModelCheckpoint`, `BackupAndRestore` and `EarlyStopping` see
    the average.

    Weights and backups saved by Keras contain the average and the raw weights, so a resumed run with the same callbacks
    equals an uninterrupted one. A saved `.keras` file opens as the plain averaged model. A later `fit` with the
    callback continues from the raw weights. If the model has been compiled again or its weights have changed, training
    starts from the current weights with a new average.

    The moving statistics of batch normalisation stay those of the raw weights, unless `data` is given to re-estimate
    them for the averaged weights.

    Args:
        data: one array of images, or an iterable of batches (inputs, or tuples that begin with inputs), to re-estimate
            batch statistics from. The data are read at every evaluation, so they must be finite and not a generator.

    Raises:
        ValueError: If `data` has another type or, at the start of `fit`, if the model cannot take its batches.
    """

    state: WeightAverage  # set by `set_model`, which Keras calls first
    statistics: list[keras.Variable]

    def __init__(self, *, data: Any = None):
        super().__init__()
        if data is not None:
            check_reestimation_data(data)
        self.data, self._evaluating = data, False

    def average(self, variables: Sequence[Any]) -> WeightAverage:
        """Return a new average of these variables."""
        raise NotImplementedError(
            f"{type(self).__name__} has no average(variables). Define this method in the subclass."
        )

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(f"{type(self).__name__} needs a model with an optimizer. Compile the model.")
        if isinstance(optimizer, AveragingOptimizer):  # an earlier fit ended with an exception
            optimizer = optimizer.optimizer
        variables = model.trainable_variables
        state = getattr(model, "weight_average", None)
        with _scope(model):
            if state is None or not state.belongs_to(optimizer, variables):
                state = self.average(variables)
            self.state = model.weight_average = state
            _set_optimizer(model, AveragingOptimizer(optimizer, state))
            model.optimizer.build(variables)
        self.statistics = [v for layer in trainable_normalisations(model) for v in layer.non_trainable_variables]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()
        if self.data is not None:
            model: Any = self.model
            check_batches(model, self.data)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._swap_out()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._evaluating = self._swap_in()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._evaluating:
            self._swap_out()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._swap_in()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._swap_in()
        model: Any = self.model
        _set_optimizer(model, model.optimizer.optimizer)

    def _swap_in(self) -> bool:
        model: Any = self.model  # on JAX the property copies the trainer's state into the variables
        if not self.state.swap_in(self.statistics):
            return False
        if self.data is not None:
            reestimate(model, self.data)
        return True

    def _swap_out(self) -> None:
        _ = self.model
        self.state.swap_out(self.statistics)


class PolyakAveraging(WeightAveraging):
    """Keep the moving average x_test ← decay · x_test + (1 − decay) · x after every update.

    The average starts at x_test = 0, and the bias of this start is divided out, as in Adam. The share of the newest
    weights after t updates is (1 − decay) / (1 − decayᵗ), and the average after the first update equals the weights.

    Args:
        decay: in [0, 1); 0.995 remembers about 200 updates.
        data: see `WeightAveraging`.

    Raises:
        ValueError: If `decay` is outside [0, 1), or `data` cannot be used.

    Source: Polyak and Juditsky, 1992; Kingma and Ba, 2015, section 7.2.

    Example:
        `model.fit(x, y, callbacks=[optimizers.PolyakAveraging()])`
    """

    def __init__(self, decay: float = 0.995, *, data: Any = None):
        super().__init__(data=data)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1). Got {decay}.")
        self.decay = decay

    def average(self, variables: Sequence[Any]) -> WeightAverage:
        return WeightAverage(variables, decay=self.decay)


class UniformAveraging(WeightAveraging):
    """Keep the mean of the weights after updates start + every, start + 2 · every, …

    This is stochastic weight averaging (Izmailov et al., 2018) if `every` is the length of an epoch or cycle.

    Args:
        start: number of the optimizer's updates after which the average begins.
        every: number of updates between two weights of the average.
        data: see `WeightAveraging`.

    Raises:
        ValueError: If `start` or `every` is not a whole number in its range, or `data` cannot be used.

    Example:
        `UniformAveraging(start=30 * n, every=n, data=images[:64])` with n updates per epoch.
    """

    def __init__(self, start: int, *, every: int = 1, data: Any = None):
        super().__init__(data=data)
        # The average is updated when (updates − start) % every is 0, which may never happen for every = 2.5.
        if start < 0 or start % 1:
            raise ValueError(f"start must be a whole number of updates that is not negative. Got {start}.")
        if every < 1 or every % 1:
            raise ValueError(f"every must be a whole number of updates and at least 1. Got {every}.")
        self.start, self.every = int(start), int(every)

    def average(self, variables: Sequence[Any]) -> WeightAverage:
        return WeightAverage(variables, start=self.start, every=self.every)


def _scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Return the context in which to create variables, so that each replica of a tf.distribute strategy has a copy."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else nullcontext()


def _set_optimizer(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Set the optimizer without Keras's tracking, which would save it, and recompile the training step."""
    model.__dict__["optimizer"] = optimizer
    model.train_function = None
