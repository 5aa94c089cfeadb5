"""What every optimizer must satisfy, on whatever backend Keras runs: serialisation, resuming, compiled steps, and more.

A contract is a function of a factory (rate) → optimizer. Shared by the tests of this process (TensorFlow) and of the
subprocesses that run the other backends.
"""

import keras
import numpy as np
from keras import ops

import optimizers


def data(n=48, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype("int32")


def network(seed=1):
    """Kernels, biases, normalisation parameters, a kernel too large to be fused, and noise."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(128, activation="tanh", name="wide"),
            keras.layers.Dense(160, activation="tanh", name="large"),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.Dense(2, name="head"),
        ]
    )


def compiled(model, optimizer, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **options)
    return model


def fitted(make, *, steps=6, model=None, rate=0.01, **options):
    """A network after `steps` batches of 8, in a fixed order."""
    model = model or network()
    x, y = data()
    compiled(model, make(rate), **options).fit(x[: 8 * steps], y[: 8 * steps], 8, 1, shuffle=False, verbose=0)
    return model


def values(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def same(first, second, rtol=0.0, atol=0.0):
    assert len(first) == len(second)
    for a, b in zip(values(first), values(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def config_round_trip(make, tmp_path):
    optimizer = make(optimizers.Warmup(optimizers.Cosine(0.1, 90), 10))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(copy) is type(optimizer)
    assert copy.get_config() == optimizer.get_config()


def saved_state_is_exact(make, tmp_path):
    model = fitted(make)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    same(model.optimizer.variables, loaded.optimizer.variables)
    assert float(loaded.optimizer.learning_rate) == float(model.optimizer.learning_rate)


def resume_equals_uninterrupted(make, tmp_path):
    def schedule():
        return optimizers.Warmup(optimizers.Cosine(0.02, 8), 3)

    whole = fitted(make, steps=6, rate=schedule())
    fitted(make, steps=3, rate=schedule()).save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    x, y = data()
    resumed.fit(x[24:], y[24:], 8, 1, shuffle=False, verbose=0)
    same(whole.variables, resumed.variables, rtol=1e-6, atol=1e-7)
    same(whole.optimizer.variables, resumed.optimizer.variables, rtol=1e-6, atol=1e-7)


def jit_equals_eager(make, tmp_path):
    eager = fitted(make, run_eagerly=True, jit_compile=False)
    jit = (
        keras.backend.backend() != "torch"
    )  # torch.compile needs a C++ toolchain and minutes: only the fit is repeated
    jitted = fitted(make, jit_compile=jit)
    same(eager.variables, jitted.variables, rtol=2e-4, atol=2e-5)


def accumulation_equals_one_large_batch(make, tmp_path):
    """Three micro-batches of 8 count as one update of 24 examples, the schedule's count included."""
    x, y = data()

    def schedule():
        return optimizers.StepDecay(0.01, boundaries=[1], factor=0.1)

    def accumulating():
        optimizer = make(schedule())
        inner = getattr(optimizer, "optimizer", optimizer)
        config = inner.get_config() | {"gradient_accumulation_steps": 3, "learning_rate": schedule()}
        inner = type(inner)(**config)
        return optimizers.Discriminative(inner, optimizer.multipliers) if hasattr(optimizer, "optimizer") else inner

    large = compiled(network(), make(schedule()))
    large.fit(x, y, 24, 1, shuffle=False, verbose=0)
    small = compiled(network(), accumulating())
    small.fit(x, y, 8, 1, shuffle=False, verbose=0)
    assert int(small.optimizer.iterations) == int(large.optimizer.iterations) == 2
    same(large.trainable_variables, small.trainable_variables, rtol=1e-3, atol=2e-5)


def clipping_equals_clipped_gradients(make, tmp_path):
    """clipnorm on gradients of very different sizes is no clipping on gradients clipped by hand; and it matters."""
    rng = np.random.default_rng(0)
    raw = [(scale * rng.normal(size=3)).astype("float32") for scale in (1e-2, 30.0, 0.1, 1e4)]
    by_hand = [g * min(1, 0.5 / np.linalg.norm(g)) for g in raw]
    results = []
    for clipnorm, gradients in ((0.5, raw), (None, by_hand), (None, raw)):
        optimizer = make(0.01)
        optimizer.clipnorm = clipnorm
        variable = keras.Variable(np.zeros(3, "float32"), name="kernel")
        for g in gradients:
            optimizer.apply([ops.convert_to_tensor(g)], [variable])
        results.append(variable)
    same([results[0]], [results[1]], rtol=1e-5)
    assert np.abs(np.subtract(*values(results[1:]))).max() > 1e-3


def half_precision_variables_move_by_small_gradients(make, tmp_path):
    """ε = 1e-8 and the squares of gradients of 1e-4 are 0 in float16: slots are float32."""
    ours = getattr(make(0.1), "optimizer", make(0.1))
    if type(ours).__module__.startswith("keras"):
        return  # Keras's own compute in the variable's dtype
    moved = []
    for dtype in ("float16", "float32"):
        variable, other = (keras.Variable(np.zeros(3, dtype), dtype=dtype, name="kernel") for _ in range(2))
        optimizer = make(0.1)
        for g in ([0.0, 1e-4, -2e-4], [0.0, 2e-4, 1e-4]):
            gradients = [ops.convert_to_tensor(np.array(g, dtype))] * 2
            optimizer.apply(gradients, [variable, other])
        moved.append(values([variable])[0].astype("float32"))
    assert np.isfinite(moved[0]).all() and moved[0][0] == 0
    np.testing.assert_allclose(moved[0], moved[1], rtol=2e-3, atol=1e-8)


def mixed_precision_skips_overflow(make, tmp_path):
    """float16 with loss scaling: finite steps train; one of infinite gradients changes nothing and halves the scale."""
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = compiled(network(), make(0.01))
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    x, y = data(8)
    before = values(model.trainable_variables)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.dynamic_scale.assign(2.0**8)
    model.train_on_batch(x, y)
    moved = values(model.trainable_variables)
    assert all((a != b).any() and np.isfinite(b).all() for a, b in zip(before, moved, strict=True))
    model.train_on_batch(x * np.inf, y)
    same(model.trainable_variables, moved)
    assert float(ops.convert_to_numpy(model.optimizer.dynamic_scale)) == 2.0**7


def embedding_gradients_work(make, tmp_path):
    """Sparse in TensorFlow; rows that do not occur see a zero gradient, and weight decay at most."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Embedding(7, 3), keras.layers.Flatten(), keras.layers.Dense(2)])
    compiled(model, make(0.1))
    ids = np.array([[0, 1], [2, 1], [0, 2], [1, 1]])
    model.build(ids.shape)
    before = values([model.layers[0].embeddings])[0]
    model.fit(ids, np.array([0, 1, 0, 1]), 2, 1, verbose=0)
    after = values([model.layers[0].embeddings])[0]
    assert (after[:3] != before[:3]).any(1).all()
    decay = after[3:] / before[3:]
    np.testing.assert_allclose(decay, decay.flat[0], rtol=1e-5)


def missing_gradients_leave_their_variables_alone(make, tmp_path):
    optimizer = make(0.01)
    used, unused, other = (keras.Variable(np.ones((2, 2), "float32"), name="kernel") for _ in range(3))
    gradient = ops.ones((2, 2))
    optimizer.apply([gradient, gradient, gradient], [used, unused, other])
    before = values([unused])[0]
    optimizer.apply([gradient, None, gradient], [used, unused, other])
    np.testing.assert_array_equal(values([unused])[0], before)
    same([used], [other])
    assert (values([used])[0] < before).all()


def one_gradient_of_a_group(make, tmp_path):
    """A frozen base, or an output without a loss: exactly one variable of those updated together has a gradient."""
    optimizer, alone = make(0.01), make(0.01)
    used, unused, single = (keras.Variable(np.ones((2, 2), "float32"), name="kernel") for _ in range(3))
    for _ in range(3):
        optimizer.apply([None, ops.ones((2, 2))], [unused, used])
        alone.apply([ops.ones((2, 2))], [single])
    same([used], [single], rtol=1e-6)
    same([unused], [np.ones((2, 2))])
    optimizer.apply([ops.ones((2, 2)), None], [unused, used])
    same([used], [single], rtol=1e-6)
    assert (values([unused])[0] < 1).all()


def fit_with_an_output_without_a_loss(make, tmp_path):
    x, y = data(16)
    inputs = keras.Input((6,))
    outputs = {name: keras.layers.Dense(2, use_bias=False, name=name)(inputs) for name in ("used", "idle")}
    model = keras.Model(inputs, outputs)
    kernels = [model.get_layer(name).kernel for name in ("used", "idle")]
    before = values(kernels)
    model.compile(make(0.01), {"used": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    model.fit(x, {"used": y}, 8, 1, verbose=0)
    after = values(kernels)
    assert (after[0] != before[0]).all()
    if keras.backend.backend() == "jax":  # there the gradient is zero, and weight decay acts
        np.testing.assert_allclose(after[1] / before[1], (after[1] / before[1]).flat[0], rtol=1e-5)
    else:
        np.testing.assert_array_equal(after[1], before[1])


def sparse_gradients_equal_dense_ones(make, tmp_path):
    """Of a fused and of a large table, with rows that repeat, under clipping, accumulation and loss scaling.

    Keras's own optimizers inside of Discriminative keep Keras's own handling.
    """
    if type(getattr(make(0.1), "optimizer", make(0.1))).__module__.startswith("keras"):
        return
    for rows in (7, 6000):
        for attribute, value in ((None, None), ("clipnorm", 0.1), ("loss_scale_factor", 4.0)):
            results = []
            for sparse in (False, True):
                optimizer = make(0.1)
                if attribute:
                    setattr(optimizer, attribute, value)
                table = keras.Variable(np.ones((rows, 3), "float32"), name="embeddings")
                other = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
                for seed in range(3):
                    gradient = sparse_gradient(rows, seed)
                    gradient = gradient if sparse else ops.convert_to_tensor(densified(gradient))
                    apply(optimizer, [gradient, ops.ones((2, 2))], [table, other])
                results.append(table)
            same([results[0]], [results[1]], rtol=1e-5, atol=1e-6)


def apply(optimizer, gradients, variables):
    """As Keras's own training does it: without state on JAX."""
    if keras.backend.backend() != "jax":
        optimizer.apply(gradients, variables)
        return
    optimizer.build(variables)
    state = [v.value for v in optimizer.variables], gradients, [v.value for v in variables]
    new, slots = optimizer.stateless_apply(*state)
    for variable, value in zip([*variables, *optimizer.variables], [*new, *slots], strict=True):
        variable.assign(value)


def sparse_gradient(rows, seed):
    rng = np.random.default_rng(seed)
    indices, parts = np.append(rng.integers(0, rows, 8), [1, 1]), rng.normal(size=(10, 3)).astype("float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.IndexedSlices(tf.constant(parts), tf.constant(indices), tf.constant([rows, 3], "int64"))
    if keras.backend.backend() == "jax":
        from jax.experimental.sparse import BCOO

        return BCOO((parts, indices[:, None]), shape=(rows, 3))
    import torch

    return torch.sparse_coo_tensor(torch.tensor(indices)[None], torch.tensor(parts), (rows, 3))


def densified(gradient):
    """By NumPy."""
    if keras.backend.backend() == "tensorflow":
        indices, parts, shape = gradient.indices, gradient.values, gradient.dense_shape
    elif keras.backend.backend() == "jax":
        indices, parts, shape = gradient.indices[:, 0], gradient.data, gradient.shape
    else:
        indices, parts, shape = gradient._indices()[0], gradient._values(), gradient.shape
    dense = np.zeros(tuple(map(int, shape)), "float32")
    np.add.at(dense, np.array(indices), np.array(parts))
    return dense


def fit_with_a_large_embedding(make, tmp_path):
    """More elements than are fused: the rows that occur move as those of a small table do."""
    moved = []
    for rows in (7, 6000):
        keras.utils.set_random_seed(0)
        table = keras.layers.Embedding(rows, 3, embeddings_initializer="ones")
        head = keras.layers.Dense(2, kernel_initializer=keras.initializers.RandomNormal(seed=1))
        model = keras.Sequential([keras.Input((2,)), table, keras.layers.Flatten(), head])
        compiled(model, make(0.1)).fit(
            np.array([[0, 1], [2, 1], [0, 0], [1, 1]]), np.array([0, 1, 0, 1]), 2, 1, shuffle=False, verbose=0
        )
        moved.append(values([table.embeddings])[0][:7])
    np.testing.assert_allclose(moved[0], moved[1], rtol=1e-5, atol=1e-6)
    assert (moved[0][:3] != 1).any()


def opens_from_legacy_h5(make, tmp_path):
    """Weights and settings; Keras 3 restores no optimizer's state from that format."""
    model = fitted(lambda rate: make(optimizers.Warmup(optimizers.Cosine(rate, 90), 10)), steps=1)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    same(model.variables, loaded.variables)
    assert type(loaded.optimizer) is type(model.optimizer)
    config, saved = (each.get_config() for each in (loaded.optimizer, model.optimizer))
    assert keras.saving.serialize_keras_object(config) == keras.saving.serialize_keras_object(saved)


CONTRACTS = [
    config_round_trip,
    saved_state_is_exact,
    resume_equals_uninterrupted,
    jit_equals_eager,
    accumulation_equals_one_large_batch,
    clipping_equals_clipped_gradients,
    half_precision_variables_move_by_small_gradients,
    mixed_precision_skips_overflow,
    embedding_gradients_work,
    missing_gradients_leave_their_variables_alone,
    one_gradient_of_a_group,
    fit_with_an_output_without_a_loss,
    sparse_gradients_equal_dense_ones,
    fit_with_a_large_embedding,
    opens_from_legacy_h5,
]


OPTIMIZERS = {
    "Momentum": lambda rate: optimizers.Momentum(rate, weight_decay=0.01),
    "Nesterov": lambda rate: optimizers.Nesterov(rate),
    "AdaGrad": lambda rate: optimizers.AdaGrad(rate),
    "RMSProp": lambda rate: optimizers.RMSProp(rate, weight_decay=0.01, decay_biases=True),
    "Adam": lambda rate: optimizers.Adam(rate, weight_decay=0.01),
    "Discriminative(Adam)": lambda rate: optimizers.Discriminative(
        optimizers.Adam(rate, weight_decay=0.01), {".*": 0.5}
    ),
    "Discriminative(keras AdamW)": lambda rate: optimizers.Discriminative(
        keras.optimizers.AdamW(rate, weight_decay=0.01), {".*": 0.5}
    ),
}
