"""Averages against NumPy over recorded weights; evaluation, saving and resuming with the average."""

import keras
import numpy as np
import pytest
from optimizer_contracts import compiled, data, same, values

import optimizers


class Recorder(keras.callbacks.Callback):
    """The weights after every batch, and what evaluation sees."""

    def __init__(self):
        super().__init__()
        self.path, self.evaluated = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.path.append(values(self.model.trainable_variables))

    def on_test_begin(self, logs=None):
        self.evaluated.append(values(self.model.trainable_variables))


def network(normalised=False):
    keras.utils.set_random_seed(5)
    norm = [keras.layers.BatchNormalization(momentum=0.9)] if normalised else []
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), *norm, keras.layers.Dense(2)])


def fit(model, callbacks, epochs=2, initial_epoch=0, validate=False):
    x, y = data(32)
    options = {"validation_data": (x, y)} if validate else {}
    model.fit(
        x, y, 8, epochs, shuffle=False, verbose=0, callbacks=callbacks, initial_epoch=initial_epoch, **options
    )  # fmt: skip
    return model


def test_polyak_is_the_lectures_average_without_its_initial_bias():
    recorder, average = Recorder(), optimizers.PolyakAveraging(0.8)
    model = fit(compiled(network(), optimizers.Momentum(0.3)), [average, recorder], validate=True)
    expected = [np.zeros_like(w) for w in recorder.path[0]]
    for weights in recorder.path:
        expected = [0.8 * e + 0.2 * w for e, w in zip(expected, weights, strict=True)]
    expected = [e / (1 - 0.8 ** len(recorder.path)) for e in expected]
    same(model.trainable_variables, expected, rtol=1e-5, atol=1e-6)
    same(recorder.evaluated[-1], expected, rtol=1e-5, atol=1e-6)


def test_raw_weights_go_on_untouched():
    plain, averaged = Recorder(), Recorder()
    fit(compiled(network(), optimizers.Momentum(0.3)), [plain], validate=True)
    fit(compiled(network(), optimizers.Momentum(0.3)), [optimizers.PolyakAveraging(), averaged], validate=True)
    same(plain.path[-1], averaged.path[-1])


def test_uniform_is_the_mean_from_the_start_on():
    recorder = Recorder()
    model = fit(compiled(network(), optimizers.Momentum(0.3)), [optimizers.UniformAveraging(2, every=3), recorder])
    mean = [np.mean([recorder.path[4][i], recorder.path[7][i]], 0) for i in range(4)]
    same(model.trainable_variables, mean, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_count_as_one_update():
    recorder = Recorder()
    optimizer = optimizers.Momentum(0.3, gradient_accumulation_steps=4)
    model = fit(compiled(network(), optimizer), [optimizers.UniformAveraging(0), recorder])
    mean = [np.mean([recorder.path[3][i], recorder.path[7][i]], 0) for i in range(4)]
    same(model.trainable_variables, mean, rtol=1e-5, atol=1e-6)


def test_batch_statistics_are_those_of_the_averaged_weights():
    x, _ = data(32)
    average = optimizers.UniformAveraging(0, data=[x[:16], x[16:]])
    model = fit(compiled(network(normalised=True), optimizers.Momentum(0.3)), [average])
    dense, norm = model.layers[:2]
    batches = [np.tanh(b @ values([dense.kernel])[0] + values([dense.bias])[0]) for b in (x[:16], x[16:])]
    np.testing.assert_allclose(values([norm.moving_mean])[0], np.mean([b.mean(0) for b in batches], 0), atol=1e-5)
    np.testing.assert_allclose(values([norm.moving_variance])[0], np.mean([b.var(0) for b in batches], 0), rtol=1e-4)
    assert norm.momentum == 0.9


class Batches(keras.utils.PyDataset):
    """Twelve and four images; iterating over it does not end."""

    num_batches = 2

    def __len__(self):
        return 2

    def __getitem__(self, index):
        x = data(32)[0]
        return (x[:12], x[12:16])[index % 2], np.zeros(16)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[:16],
        lambda x: [x[:12], x[12:16]],
        lambda x: ((x[:12], np.zeros(12)), (x[12:16], np.zeros(4))),
        lambda x: keras.ops.convert_to_tensor(x[:16]),
        lambda x: Batches(),
    ],
    ids=["array", "batches", "with labels", "tensor", "PyDataset"],
)
def test_data_is_what_reestimation_accepts(make):
    """All forms of the same sixteen images give the mean of their activations, however they are cut."""
    x, _ = data(32)
    model = fit(compiled(network(True), optimizers.Momentum(0.3)), [optimizers.UniformAveraging(0, data=make(x))])
    dense, norm = model.layers[:2]
    activations = np.tanh(x[:16] @ values([dense.kernel])[0] + values([dense.bias])[0])
    np.testing.assert_allclose(values([norm.moving_mean])[0], activations.mean(0), atol=1e-5)


def test_a_dataset_of_tensorflow_is_accepted():
    tf = pytest.importorskip("tensorflow")
    images = tf.data.Dataset.from_tensor_slices(data(32)[0][:16]).batch(12)
    if keras.backend.backend() == "tensorflow":
        fit(compiled(network(True), optimizers.Momentum(0.3)), [optimizers.UniformAveraging(0, data=images)])
    with pytest.raises(ValueError, match="without an end"):
        optimizers.UniformAveraging(0, data=images.repeat())


@pytest.mark.parametrize(
    "average", [optimizers.PolyakAveraging, lambda **k: optimizers.UniformAveraging(0, **k)], ids=["Polyak", "uniform"]
)
@pytest.mark.parametrize(
    "wrong, message",
    [
        ((x for x in ()), "can be read only once"),
        ("photos/", "Got a str"),
        ([], "empty list"),
        (np.zeros((0, 6)), "no images"),
        (np.float32(1), "no images"),
        ({"x": np.zeros((4, 6))}, "Got a dict"),
        (3, "Got a int"),
    ],
    ids=["generator", "path", "empty list", "empty array", "scalar", "dict", "number"],
)
def test_wrong_data_is_named_at_once(average, wrong, message):
    with pytest.raises(ValueError, match=message):
        average(data=wrong)


@pytest.mark.parametrize(
    "make",
    [lambda x, y: (x, y), lambda x, y: list(x), lambda x, y: x[:, :4], lambda x, y: [x[:8], x[:8, :4]]],
    ids=["inputs and labels", "single images", "other size", "second batch of other size"],
)
def test_data_that_does_not_fit_is_named_before_training(make):
    """Long before the average begins, and with the model as it was."""
    model = compiled(network(True), optimizers.Momentum(0.3))
    before = values(model.variables)
    with pytest.raises(ValueError, match="cannot take a batch of shape"):
        fit(model, [optimizers.UniformAveraging(10_000, data=make(*data(32)))])
    same(model.variables, before)


def test_decay_of_zero_is_the_weights():
    """Also after a large weight, which a difference would swallow."""
    model = compiled(network(), optimizers.Momentum(1.0, rho=0.0))
    variables = model.trainable_variables
    average = optimizers.PolyakAveraging(0.0).average(variables)
    for scale in (1e8, 1e-3):
        for variable in variables:
            variable.assign(np.full(variable.shape, scale))
        average.update(keras.ops.convert_to_tensor(0), keras.ops.convert_to_tensor(1))
    np.testing.assert_allclose(values([average.average])[0], 1e-3, rtol=1e-6)


def test_resume_is_exact(tmp_path):
    """Backups hold both the average and the raw weights."""

    def callbacks():
        return [optimizers.PolyakAveraging(0.8), keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)]

    whole = fit(compiled(network(True), optimizers.Adam(0.05)), [optimizers.PolyakAveraging(0.8)], epochs=3)
    fit(compiled(network(True), optimizers.Adam(0.05)), callbacks(), epochs=2)
    resumed = fit(compiled(network(True), optimizers.Adam(0.05)), callbacks(), epochs=3)
    assert int(resumed.optimizer.iterations) == 12
    same(whole.variables, resumed.variables, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.weight_average.raw, resumed.weight_average.raw, rtol=1e-5, atol=1e-6)


def test_a_second_fit_goes_on_from_the_raw_weights():
    twice, once = (compiled(network(True), optimizers.Adam(0.05)) for _ in range(2))
    for first in (0, 1):
        fit(twice, [optimizers.PolyakAveraging(0.8)], epochs=first + 1, initial_epoch=first)
    fit(once, [optimizers.PolyakAveraging(0.8)], epochs=2)
    same(twice.variables, once.variables, rtol=1e-5, atol=1e-6)


def test_compiling_again_begins_a_new_average():
    """The average of the first optimizer, and its raw weights, are forgotten."""
    model = fit(compiled(network(), optimizers.Momentum(0.3)), [optimizers.PolyakAveraging(0.99)])
    start, recorder = values(model.trainable_variables), Recorder()
    fit(compiled(model, optimizers.Momentum(0.0)), [optimizers.PolyakAveraging(0.99), recorder], epochs=1)
    same(recorder.path[0], start)
    same(model.trainable_variables, start, rtol=1e-5, atol=1e-6)


def test_weights_set_by_the_user_are_kept():
    """Between two fits, and by a callback after every epoch: raw weights of before are not put over them."""
    model = fit(compiled(network(), optimizers.Momentum(0.0)), [optimizers.PolyakAveraging(0.9)])
    for weights in (5.0, -1.0):
        for variable in model.trainable_variables:
            variable.assign(np.full(variable.shape, weights))
        fit(model, [optimizers.PolyakAveraging(0.9)])
        same(model.trainable_variables, [np.full(v.shape, weights) for v in model.trainable_variables], rtol=1e-6)


def test_fit_without_the_callback_is_the_plain_models():
    """The optimizer is the one compiled, and what it learns meanwhile is not undone later."""
    optimizer = optimizers.Momentum(0.3)
    model = fit(compiled(network(), optimizer), [optimizers.PolyakAveraging(0.9)])
    assert model.optimizer is optimizer
    fit(model, [])
    after, recorder = values(model.trainable_variables), Recorder()
    optimizer.learning_rate = 0.0
    fit(model, [optimizers.PolyakAveraging(0.9), recorder], epochs=1)
    assert max(np.abs(a - b).max() for a, b in zip(recorder.path[0], after, strict=True)) < 1  # momentum is left
    same(recorder.path[0], after, rtol=1e-6)


def test_mixed_precision_and_compiled_steps():
    """Overflows are no updates; the average of float32 weights is float32."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = compiled(network(), optimizers.Momentum(0.3), jit_compile=keras.backend.backend() != "torch")
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**100)  # the first batches overflow
    recorder = Recorder()
    fit(model, [optimizers.UniformAveraging(0), recorder], epochs=30)
    updates = int(model.optimizer.iterations)
    assert 0 < updates < 120 and int(keras.ops.convert_to_numpy(model.weight_average.count)) == updates
    mean = [np.mean([weights[i] for weights in recorder.path[-updates:]], 0) for i in range(4)]
    same(model.trainable_variables, mean, rtol=1e-4, atol=1e-4)


def test_needs_a_compiled_model():
    with pytest.raises(ValueError, match="Compile the model"):
        optimizers.PolyakAveraging().set_model(network())


def test_checkpoint_opens_as_the_averaged_model(tmp_path):
    path = tmp_path / "model.keras"
    callbacks = [optimizers.PolyakAveraging(0.8), keras.callbacks.ModelCheckpoint(path)]
    model = fit(compiled(network(), optimizers.Adam(0.05)), callbacks)
    loaded = keras.models.load_model(path)
    same(model.variables, loaded.variables)
    same(model.optimizer.variables, loaded.optimizer.variables)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.PolyakAveraging(1.0),
        lambda: optimizers.UniformAveraging(-1),
        lambda: optimizers.UniformAveraging(1, every=0),
        lambda: optimizers.UniformAveraging(1, every=12.5),
        lambda: optimizers.UniformAveraging(0.5),
    ],
)
def test_refuses_nonsense(make):
    with pytest.raises(ValueError, match=r"must (be|not be)"):
        make()
