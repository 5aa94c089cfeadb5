"""Averages of the weights along the path of training: what is evaluated and saved in place of the last ones."""

import keras

from .reestimation import check_batches, check_reestimation_data, reestimate, trainable_normalisations
from .weight_average import AveragingOptimizer, WeightAverage


class WeightAveraging(keras.callbacks.Callback):
    """Keeps an average of the weights; puts it in their place while the model is evaluated, at epoch ends and after
    training.

    The average is part of the compiled training step: during `fit` the model's optimizer is wrapped, and every update
    of the weights updates the average, exactly. Put the callback first, so that `ModelCheckpoint`, `BackupAndRestore`
    and `EarlyStopping` see the average. Weights and backups saved by Keras hold both the average and the raw weights,
    so that a resumed run (same callbacks) goes on exactly as an uninterrupted one; a saved `.keras` file opens as the
    plain averaged model. A later `fit` with the callback goes on from the raw weights, unless the model was compiled
    again or its weights were changed since: then from the model as it is, with a new average.

    The moving statistics of batch normalisation, averages themselves, stay those of the raw weights, or are
    re-estimated for the averaged ones with `data`.

    Args:
        data: one array of images, or an iterable of batches (inputs, or tuples that begin with inputs), to re-estimate
            batch statistics from. It is read again at every evaluation, so it must be finite and no generator.

    Raises: ValueError for other data; at the start of `fit`, for batches that the model cannot take.
    """

    def __init__(self, *, data=None):
        super().__init__()
        if data is not None:
            check_reestimation_data(data)
        self.data = data

    def average(self, variables) -> WeightAverage:
        """A new average of these variables."""
        raise NotImplementedError(f"{type(self).__name__} defines no average(variables).")

    def set_model(self, model):
        super().set_model(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(f"{type(self).__name__} averages the weights that an optimizer moves: compile the model.")
        if isinstance(optimizer, AveragingOptimizer):  # a fit that ended with an exception
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

    def on_train_begin(self, logs=None):
        self._swap_out()
        if self.data is not None:
            check_batches(self.model, self.data)

    def on_epoch_begin(self, epoch, logs=None):
        self._swap_out()

    def on_test_begin(self, logs=None):
        self._evaluating = self._swap_in()

    def on_test_end(self, logs=None):
        if self._evaluating:
            self._swap_out()

    def on_epoch_end(self, epoch, logs=None):
        self._swap_in()

    def on_train_end(self, logs=None):
        self._swap_in()
        _set_optimizer(self.model, self.model.optimizer.optimizer)

    def _swap_in(self) -> bool:
        model = self.model  # on JAX the property copies the trainer's state into the variables
        if not self.state.swap_in(self.statistics):
            return False
        if self.data is not None:
            reestimate(model, self.data)
        return True

    def _swap_out(self):
        _ = self.model
        self.state.swap_out(self.statistics)


class PolyakAveraging(WeightAveraging):
    """The lecture's moving average, x_test ← decay · x_test + (1 − decay) · x after every update.

    From x_test = 0 and with the bias of that start divided out, as Adam does: the share of the newest weights after t
    updates is (1 − decay) / (1 − decayᵗ), and after the first the average is the weights.

    Args:
        decay: in [0, 1); 0.995 remembers about 200 updates.
        data: of `WeightAveraging`.

    Source: Polyak and Juditsky, 1992; Kingma and Ba, 2015, section 7.2.

    Example: `model.fit(x, y, callbacks=[optimizers.PolyakAveraging()])`
    """

    def __init__(self, decay: float = 0.995, *, data=None):
        super().__init__(data=data)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1). Got {decay}.")
        self.decay = decay

    def average(self, variables):
        return WeightAverage(variables, decay=self.decay)


class UniformAveraging(WeightAveraging):
    """The mean of the weights after updates start + every, start + 2 · every, …

    Stochastic weight averaging (Izmailov et al., 2018) with `every` the updates of an epoch or of a cycle.

    Args:
        start: the number of the optimizer's updates after which the average begins.
        every: updates between two weights that count.
        data: of `WeightAveraging`.

    Example: `UniformAveraging(start=30 * n, every=n, data=images[:64])`, n updates an epoch.
    """

    def __init__(self, start: int, *, every: int = 1, data=None):
        super().__init__(data=data)
        # Of 2.5 updates none would ever count: the average is taken where (updates − start) % every is 0.
        if start < 0 or start % 1:
            raise ValueError(f"start must be a whole number of updates that is not negative. Got {start}.")
        if every < 1 or every % 1:
            raise ValueError(f"every must be a whole number of updates and at least 1. Got {every}.")
        self.start, self.every = int(start), int(every)

    def average(self, variables):
        return WeightAverage(variables, start=self.start, every=self.every)


def _scope(model):
    """Where variables are made: under a tf.distribute strategy, one copy for each replica."""
    from contextlib import nullcontext

    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else nullcontext()


def _set_optimizer(model, optimizer):
    """Past Keras's tracking, which would save it, and the compiled step anew."""
    vars(model)["optimizer"] = optimizer
    model.train_function = None
