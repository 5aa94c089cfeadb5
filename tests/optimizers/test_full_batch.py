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


@pytest.mark.parametrize("first", [[], [keras.layers.Dropout(0.5)]], ids=["direct", "streamed"])
def test_sample_weights_equal_repeated_examples(first):
    """Of arrays, on both paths, and as the third element of batches."""
    x, y = data(300)
    counts = np.arange(300) % 3
    weighted, repeated, batched = (classifier(*first) for _ in range(3))
    optimizers.minimize(weighted, x, y, CROSS_ENTROPY, sample_weight=2.0 * counts, l2=0.1, tolerance=2e-6)
    options = {"loss": CROSS_ENTROPY, "l2": 0.1, "tolerance": 2e-6}
    optimizers.minimize(repeated, np.repeat(x, counts, 0), np.repeat(y, counts), **options)
    optimizers.minimize(batched, [(x[:100], y[:100], counts[:100]), (x[100:], y[100:], counts[100:])], **options)
    for other in (repeated, batched):
        for a, b in zip(values(weighted.weights), values(other.weights), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)


def test_targets_are_brought_to_the_rank_of_the_outputs():
    """(n,) targets and (n, 1) outputs are n errors, not n × n; as in compile()."""
    x, _ = data(200)
    y = x @ np.arange(5, dtype="float32") + 3

    def squares(y_true, y_pred):  # Keras's own functions would align the ranks themselves
        return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)

    for loss in ("mse", squares, keras.losses.MeanSquaredError()):
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        found = optimizers.minimize(model, x, y, loss)
        assert found.loss < 1e-6
        np.testing.assert_allclose(values([model.layers[0].kernel])[0][:, 0], np.arange(5), atol=1e-3)


def test_mixed_precision_is_minimised():
    """A scaled loss overflows on the sum over a chunk: gradients are skipped, and zeros count as convergence."""
    x, y = data(1024)
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = classifier(keras.layers.Dense(4, activation="tanh"))
        found = optimizers.minimize(model, 100 * x, y, CROSS_ENTROPY, l2=1e-3, max_iterations=20)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert found.iterations > 3 and found.loss < 0.8


def test_hessian_products_are_exact():
    """Against central differences of the gradient, with regularisers, weights and a last chunk of another size."""
    from optimizers.model_objective import ModelObjective, batches_of

    x, y = data(1100)
    dense = keras.layers.Dense(6, activation="tanh", kernel_regularizer=keras.regularizers.L2(1e-2))
    model = classifier(dense, keras.layers.BatchNormalization())
    objective = ModelObjective(model, batches_of(x, y, np.linspace(0, 1, 1100)), CROSS_ENTROPY, 0.1)
    at = objective.position()
    v = np.random.default_rng(0).normal(size=at.size)
    h = 1e-2
    differences = (objective(at + h * v)[1] - objective(at - h * v)[1]) / (2 * h)
    product = objective.hessian_product(at, v)
    np.testing.assert_allclose(product, differences, atol=2e-2 * np.abs(product).max())
    other = np.random.default_rng(1).normal(size=at.size)
    assert other @ product == pytest.approx(v @ objective.hessian_product(at, other), rel=1e-3)  # symmetric


def test_keras_data_sets_and_several_inputs():
    x, y = data(90)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return x[30 * i : 30 * i + 30], y[30 * i : 30 * i + 30]

    left, right = keras.Input((2,)), keras.Input((3,))
    both = keras.Model([left, right], keras.layers.Dense(3)(keras.layers.Concatenate()([left, right])))
    single = classifier()
    for model, arguments in ((both, ([x[:, :2], x[:, 2:]], y)), (single, (Batches(),))):
        optimizers.minimize(model, *arguments, loss=CROSS_ENTROPY, l2=0.1)
    for a, b in zip(values(both.weights), values(single.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


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


def test_an_embedding_is_a_dense_layer_on_indicators():
    """Its gradient is sparse on TensorFlow: rows that repeat add up, rows of the batch before are forgotten."""
    keras.utils.set_random_seed(0)
    ids, y = np.array([0, 2, 0, 1, 2, 2, 0, 4]), np.array([0, 1, 0, 1, 1, 0, 1, 0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    embedding, dense = keras.layers.Embedding(5, 2), keras.layers.Dense(2, use_bias=False)
    found = []
    for layer, x, shape in ((embedding, ids, ()), (dense, np.eye(5, dtype="float32")[ids], (5,))):
        model = keras.Sequential([keras.Input(shape, dtype=x.dtype), layer])
        batches = [(x[:4], y[:4]), (x[4:], y[4:])]
        found.append(optimizers.minimize(model, batches, loss=loss, l2=0.1, tolerance=1e-6))
    assert found[0].converged and found[1].converged
    np.testing.assert_allclose(found[0].x, found[1].x, atol=1e-4)


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
    with pytest.raises(ValueError, match="can be read only once"):
        optimizers.minimize(classifier(), ((x, y) for _ in range(1)), loss=CROSS_ENTROPY)
    with pytest.raises(ValueError, match="whole class numbers"):
        optimizers.minimize(classifier(), x, y + 0.5, CROSS_ENTROPY)
    with pytest.raises(ValueError, match="same number of examples"):
        optimizers.minimize(classifier(keras.layers.Dropout(0.1)), x, y[:9], CROSS_ENTROPY)
    with pytest.raises(ValueError, match="third element"):
        optimizers.minimize(classifier(), [(x, y)], loss=CROSS_ENTROPY, sample_weight=np.ones(20))
    for penalty in ({"l2": -0.1}, {"l1": -0.1}):
        with pytest.raises(ValueError, match="finite and not negative"):
            optimizers.minimize(classifier(), x, y, CROSS_ENTROPY, **penalty)


def test_losses_are_the_lectures():
    """s = (3.2, 5.1, −1.7), class 0: hinge 2.9, cross-entropy 2.04 (the lecture's cat)."""
    scores, label = np.array([[3.2, 5.1, -1.7]], "float32"), np.array([0])
    assert float(optimizers.multiclass_hinge(label, keras.ops.convert_to_tensor(scores))[0]) == pytest.approx(
        2.9, rel=1e-5
    )
    loss = float(optimizers.softmax_cross_entropy(label, keras.ops.convert_to_tensor(scores))[0])
    assert loss == pytest.approx(-np.log(np.exp(3.2) / np.exp([3.2, 5.1, -1.7]).sum()), rel=1e-5)
