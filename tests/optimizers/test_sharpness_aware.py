"""SAM against a NumPy computation, and what its second pass must not touch."""

import keras
import numpy as np
import pytest
from optimizer_contracts import compiled, data, same, values

import optimizers


def network(seed=3, noise=True):
    keras.utils.set_random_seed(seed)
    noisy = [keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dropout(0.3, seed=1)] if noise else []
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), *noisy, keras.layers.Dense(2)]
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_step_is_the_papers(adaptive):
    """Linear regression, whose gradient is known: w − α ∇L(w + ε)."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(8, 3)), rng.normal(size=(8, 1)), rng.normal(size=(3, 1))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([w])
    optimizers.sharpness_aware(model, 0.1, adaptive).compile(optimizers.Momentum(0.05, rho=0.0), "mse")
    model.fit(x.astype("float32"), y.astype("float32"), 8, 1, verbose=0)

    def gradient(w):
        return 2 * x.T @ (x @ w - y) / 8

    g, t = gradient(w), np.abs(w) + 0.01 if adaptive else np.ones_like(w)
    e = 0.1 * t * t * g / np.linalg.norm(t * g)
    np.testing.assert_allclose(values(model.weights)[0], w - 0.05 * gradient(w + e), rtol=1e-4)


def test_second_pass_moves_neither_statistics_nor_metrics_nor_seeds():
    """At rate 0 the weights come back exactly, and everything else is as after a plain step."""
    x, y = data(16)
    plain = compiled(network(), keras.optimizers.SGD(0.0))
    sharp = compiled(optimizers.sharpness_aware(network(), rho=0.5), keras.optimizers.SGD(0.0))
    start = values(sharp.trainable_variables)
    histories = [model.fit(x, y, 8, 2, shuffle=False, verbose=0).history for model in (plain, sharp)]
    same(sharp.trainable_variables, start)
    same(plain.non_trainable_variables, sharp.non_trainable_variables, rtol=1e-6)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-6)
    assert int(sharp.optimizer.iterations) == 4


def test_trains_and_saves_the_plain_model(tmp_path):
    x, y = data()
    model = compiled(optimizers.sharpness_aware(network(noise=False)), optimizers.Adam(0.02))
    losses = model.fit(x, y, 8, 15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    same(model.optimizer.variables, loaded.optimizer.variables)


def test_works_with_loss_scaling():
    """ε does not depend on the scale of the gradients."""
    x, y = data(16)
    scaled = keras.optimizers.LossScaleOptimizer(optimizers.Momentum(0.1), initial_scale=2.0**6)
    models = [compiled(optimizers.sharpness_aware(network(noise=False)), o) for o in (optimizers.Momentum(0.1), scaled)]
    for model in models:
        model.fit(x, y, 8, 1, shuffle=False, verbose=0)
    same(models[0].trainable_variables, models[1].trainable_variables, rtol=1e-4, atol=1e-6)


def test_refuses_nonsense():
    with pytest.raises(ValueError, match="rho must be positive"):
        optimizers.sharpness_aware(network(), rho=0)
    with pytest.raises(ValueError, match="already"):
        optimizers.sharpness_aware(optimizers.sharpness_aware(network()))


@pytest.mark.parametrize("adaptive", [False, True])
def test_an_embedding_is_a_dense_layer_on_indicators(adaptive):
    """The gradient of the one is sparse on TensorFlow, and a row that repeats in a batch is added up."""
    ids, y = np.array([0, 2, 0, 1, 2, 2, 0, 4]), np.array([0, 1, 0, 1, 1, 0, 1, 0])
    start = np.random.default_rng(0).normal(size=(5, 2))
    embedding, dense = keras.layers.Embedding(5, 2), keras.layers.Dense(2, use_bias=False)
    results = []
    for layer, x, shape in ((embedding, ids, ()), (dense, np.eye(5, dtype="float32")[ids], (5,))):
        model = keras.Sequential([keras.Input(shape, dtype=x.dtype), layer])
        model.set_weights([start])
        compiled(optimizers.sharpness_aware(model, 0.5, adaptive), optimizers.Adam(0.1))
        model.fit(x, y, 4, 2, shuffle=False, verbose=0)
        results.append(model.trainable_variables)
    same(*results, rtol=1e-4, atol=1e-6)
