"""minimize() over Keras models, against scikit-learn and its own methods."""

import keras
import numpy as np
import pytest
from optimizer_contracts import values

import optimizers

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(n=1500, classes=3, seed=0):
    """More than one chunk."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype("float32")
    scores = x @ rng.normal(size=(5, classes)) + rng.normal(size=(n, classes))
    return x, scores.argmax(1).astype("int32")


def classifier(*first):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5,)), *first, keras.layers.Dense(3)])


def objective(model, x, y, l2, l1=0.0):
    """In float64, by NumPy."""
    kernel, bias = (w.astype(float) for w in values(model.weights[-2:]))
    scores = x.astype(float) @ kernel + bias
    scores -= scores.max(1, keepdims=True)
    nll = np.log(np.exp(scores).sum(1)) - scores[np.arange(len(y)), y]
    return nll.mean() + l2 / 2 * (kernel**2).sum() + l1 * np.abs(kernel).sum()


@pytest.mark.parametrize("method", ["lbfgs", "newton-cg", "bfgs"])
def test_methods_reach_scikit_learns_optimum(method):
    """Dropout keeps the model off the path for linear models, and is off during the minimisation."""
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, y = data()
    model = classifier(keras.layers.Dropout(0.5))
    found = optimizers.minimize(model, x, y, CROSS_ENTROPY, method=method, l2=0.01)
    reference = sklearn.LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-9, max_iter=1000).fit(x.astype(float), y)
    other = classifier()
    other.set_weights([reference.coef_.T, reference.intercept_])
    best = objective(other, x, y, 0.01)
    assert found.converged and found.gradient_norm <= 1e-5 and found.iterations < found.evaluations
    assert objective(model, x, y, 0.01) == pytest.approx(best, rel=1e-7)
    assert found.loss == pytest.approx(best, rel=1e-6)


def test_linear_models_take_the_direct_path_to_the_same_optimum():
    x, y = data()
    direct, streamed = classifier(), classifier(keras.layers.Dropout(0.5))
    optimizers.minimize(direct, x, y, CROSS_ENTROPY, l2=0.01)
    optimizers.minimize(streamed, x, y, CROSS_ENTROPY, l2=0.01)
    assert objective(direct, x, y, 0.01) == pytest.approx(objective(streamed, x, y, 0.01), rel=1e-7)


def test_l1_makes_zeros_and_agrees_between_both_paths():
    x, y = data()
    results = []
    for model in (classifier(), classifier(keras.layers.Dropout(0.5))):
        found = optimizers.minimize(model, x, y, CROSS_ENTROPY, l1=0.03, l2=0.01)
        assert found.converged and (values(model.weights[-2:])[0] == 0).any()
        results.append(objective(model, x, y, 0.01, 0.03))
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_batches_equal_arrays():
    x, y = data(700)
    models = classifier(keras.layers.Dropout(0.5)), classifier(keras.layers.Dropout(0.5))
    optimizers.minimize(models[0], x, y, CROSS_ENTROPY, l2=0.1)
    optimizers.minimize(models[1], [(x[:400], y[:400]), (x[400:], y[400:])], loss=CROSS_ENTROPY, l2=0.1)
    assert objective(models[0], x, y, 0.1) == pytest.approx(objective(models[1], x, y, 0.1), rel=1e-7)


def test_network_with_regularisers_and_batch_normalisation_descends():
    x, y = data(400)
    dense = keras.layers.Dense(6, activation="tanh", kernel_regularizer=keras.regularizers.L2(1e-3))
    model = classifier(dense, keras.layers.BatchNormalization())
    model.compile("sgd", CROSS_ENTROPY)
    statistics = values(model.non_trainable_variables)
    before = model.evaluate(x, y, verbose=0)
    found = optimizers.minimize(model, x, y, CROSS_ENTROPY, max_iterations=30)
    assert found.loss == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-5)
    assert found.loss < 0.5 * before
    assert all((a == b).all() for a, b in zip(statistics, values(model.non_trainable_variables), strict=True))


def test_noise_that_stays_on_is_refused():
    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)

    layer = Noise()
    layer.seeds = keras.random.SeedGenerator(0)
    x, y = data(100)
    with pytest.raises(ValueError, match="without noise"):
        optimizers.minimize(classifier(layer), x, y, CROSS_ENTROPY)


def test_mistakes_are_named():
    x, y = data(20)
    with pytest.raises(ValueError, match="method must be one of"):
        optimizers.minimize(classifier(), x, y, CROSS_ENTROPY, method="adam")
    with pytest.raises(ValueError, match="built model"):
        optimizers.minimize(keras.Sequential([keras.layers.Dense(3)]), x, y, CROSS_ENTROPY)


def test_losses_are_the_lectures():
    """s = (3.2, 5.1, −1.7), class 0: hinge 2.9, cross-entropy 2.04 (the lecture's cat)."""
    scores, label = np.array([[3.2, 5.1, -1.7]], "float32"), np.array([0])
    assert float(optimizers.multiclass_hinge(label, keras.ops.convert_to_tensor(scores))[0]) == pytest.approx(
        2.9, rel=1e-5
    )
    loss = float(optimizers.softmax_cross_entropy(label, keras.ops.convert_to_tensor(scores))[0])
    assert loss == pytest.approx(-np.log(np.exp(3.2) / np.exp([3.2, 5.1, -1.7]).sum()), rel=1e-5)
