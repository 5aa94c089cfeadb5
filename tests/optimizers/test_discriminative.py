"""A multiplier is a learning rate: compared with the wrapped optimizer at that rate, Keras's own and ours."""

import keras
import numpy as np
import pytest
from keras import ops
from optimizer_contracts import compiled, data, same, values

import optimizers
from optimizers import Discriminative, layerwise_decay

INNER = {
    "Momentum": lambda rate: optimizers.Momentum(rate, weight_decay=0.1),
    "Adam": lambda rate: optimizers.Adam(rate, weight_decay=0.1),
    "keras SGD": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, weight_decay=0.1),
    "keras AdamW": lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1),
    "keras RMSprop": keras.optimizers.RMSprop,
    "keras Lion": keras.optimizers.Lion,
    "keras Nadam": keras.optimizers.Nadam,  # a product over steps, which must not advance once per multiplier
    "scaled loss": lambda rate: keras.optimizers.LossScaleOptimizer(optimizers.Adam(rate, weight_decay=0.1)),
    "scaled loss, keras": lambda rate: keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(rate)),
}


def variables():
    return [keras.Variable(np.full((2, 3), i + 1.0), name=f"kernel_{i}") for i in range(3)]


def step(optimizer, targets, gradients):
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(g * (i + 1)) for i in range(len(targets))], targets)


GRADIENTS = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")


@pytest.mark.parametrize("name", INNER)
def test_multiplier_is_the_rate(name):
    make = INNER[name]
    if "scaled" in name and keras.backend.backend() == "jax":
        pytest.skip("Keras's LossScaleOptimizer cannot apply() outside of a compiled step on JAX")
    together = variables()
    step(Discriminative(make(0.1), {"kernel_0": 0.5, "kernel_1": 0.0, ".*": 1.0}), together, GRADIENTS)
    for rate, i in ((0.05, 0), (0.1, 2)):
        alone = variables()
        step(make(rate), alone, GRADIENTS)
        same([together[i]], [alone[i]], rtol=1e-5, atol=1e-6)
    same([together[1]], [np.full((2, 3), 2.0)])


def test_first_matching_pattern_decides():
    optimizer = Discriminative(optimizers.Momentum(1.0), {"kernel_2": 0.0, "kernel": 1.0})
    targets = variables()
    step(optimizer, targets, GRADIENTS[:1])
    same([targets[2]], [np.full((2, 3), 3.0)])
    np.testing.assert_allclose(values([targets[0]])[0], 1 - GRADIENTS[0], rtol=1e-5)


@pytest.mark.parametrize(
    "multipliers, message",
    [
        ({"kernel_[01]": 1.0}, "matches 1 of 3 trainable variables: kernel_2"),
        ({"kernel": 1.0, "bias": 2.0}, "'bias' matches no trainable variable"),
        ({".*": 1.0, "kernel_0": 2.0}, "'kernel_0' is not used"),
        ({".*": -1.0}, "must be at least 0"),
    ],
)
def test_mistakes_are_named(multipliers, message):
    with pytest.raises(ValueError, match=message):
        Discriminative(optimizers.Adam(), multipliers).build(variables())


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="body"), keras.layers.Dense(2, name="head")])


def test_reduce_on_plateau_saving_and_reloading(tmp_path):
    x, y = data(16)
    model = compiled(network(), Discriminative(keras.optimizers.Adam(0.1), {"head/": 1.0, ".*": 0.1}))
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e9)
    model.fit(x, y, 8, 3, verbose=0, callbacks=[plateau])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    same(model.optimizer.variables, loaded.optimizer.variables)
    for each in (model, loaded):
        each.fit(x, y, 8, 1, shuffle=False, verbose=0)
    same(model.variables, loaded.variables)


def test_layerwise_decay_by_feature_map_size():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 3, padding="same", name="a"),
            keras.layers.Conv2D(4, 3, padding="same", name="b"),
            keras.layers.Conv2D(4, 3, 2, padding="same", name="c"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="head"),
        ]
    )
    multipliers = layerwise_decay(model, 0.5)
    depth = {"a": 0.25, "b": 0.25, "c": 0.5, "norm": 0.5, "head": 1.0}
    optimizer = Discriminative(optimizers.Adam(), multipliers)
    optimizer.build(model.trainable_variables)
    assert list(optimizer._assigned) == [depth[v.path.split("/")[-2]] for v in model.trainable_variables]


def test_layerwise_decay_of_a_pretrained_shape():
    """A nested MobileNetV2: five strides and a head, six rates."""
    base = keras.applications.MobileNetV2(alpha=0.35, include_top=False, weights=None, input_shape=(96, 96, 3))
    head = keras.Sequential(
        [keras.Input((96, 96, 3)), base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )
    multipliers = layerwise_decay(head, 0.5)
    assert len(multipliers) == len(head.trainable_variables)
    assert sorted(set(multipliers.values())) == [0.5**k for k in range(5, -1, -1)]


def test_layerwise_decay_of_squeeze_and_excitation():
    """MobileNetV3's 1 × 1 maps inside of blocks are no stages: five strides and a head, as MobileNetV2."""
    options = {"include_top": False, "weights": None, "input_shape": (64, 64, 3)}
    multipliers = layerwise_decay(keras.applications.MobileNetV3Small(minimalistic=False, **options), 0.5)
    stem = next(value for pattern, value in multipliers.items() if pattern.startswith(r"(^|/)conv/kernel"))
    assert stem == min(multipliers.values()) == 0.5**4  # without a head, the last map is stage 0
    assert len(set(multipliers.values())) == 5


def test_layerwise_decay_needs_known_sizes_and_distinct_names():
    unknown = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3)])
    with pytest.raises(ValueError, match="fixed height and width"):
        layerwise_decay(unknown, 0.5)
    nested = []
    for size in (6, 4):
        x = keras.Input((size,))
        nested.append(keras.Model(x, keras.layers.Dense(4, name="same")(x)))
    with pytest.raises(ValueError, match="different names"):
        layerwise_decay(keras.Sequential([keras.Input((6,)), *nested]), 0.5)


def test_behaves_like_the_optimizer_inside():
    """Excluding from weight decay, moving averages, accumulation and loss scaling reach it."""
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.5, use_ema=True, ema_momentum=0.5)
    optimizer = Discriminative(inner, {".*": 1.0})
    optimizer.exclude_from_weight_decay(var_names=["kernel_0"])
    targets = variables()
    step(optimizer, targets, np.zeros((2, 2, 3), "float32"))
    same([targets[0]], [np.full((2, 3), 1.0)])
    same([targets[1]], [np.full((2, 3), 2 * 0.95**2)], rtol=1e-6)
    assert optimizer.use_ema
    optimizer.finalize_variable_values(targets)
    same([targets[1]], [np.full((2, 3), 0.95 * (1 + 0.95))], rtol=1e-6)
    scaled = Discriminative(optimizers.Momentum(0.1, loss_scale_factor=8.0), {".*": 1.0})
    keras.optimizers.LossScaleOptimizer(scaled)
    assert scaled.loss_scale_factor is None and scaled.optimizer.loss_scale_factor is None


def test_swapping_in_keras_moving_average():
    x, y = data(16)
    inner = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    twin = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    models = [compiled(network(), o) for o in (Discriminative(inner, {".*": 1.0}), twin)]
    for model in models:
        model.fit(x, y, 8, 2, shuffle=False, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    same(models[0].trainable_variables, models[1].trainable_variables, rtol=1e-6)


def test_an_optimizer_without_a_rule_of_its_own_is_refused():
    with pytest.raises(ValueError, match="does not define update_step"):
        Discriminative(Discriminative(optimizers.Adam(), {".*": 1.0}), {".*": 1.0})


def test_set_weights_reaches_the_optimizer_inside():
    """Other shapes are refused and named."""
    first, second = (Discriminative(optimizers.Adam(0.1), {"kernel_0": 0.5, ".*": 1.0}) for _ in range(2))
    with pytest.raises(ValueError, match="before it is built"):
        second.set_weights([])
    targets = variables()
    step(first, targets, GRADIENTS)
    second.build(targets)
    second.set_weights(values(first.variables))
    same(first.variables, second.variables)
    assert int(ops.convert_to_numpy(second.iterations)) == 5
    with pytest.raises(ValueError, match="must have the shapes"):
        second.set_weights(values(first.variables)[:-1])


def test_training_goes_on_after_opening_a_legacy_h5_file(tmp_path):
    """Every rate is another group of slots, and each needs a path of its own in the file."""
    x, y = data(16)
    model = compiled(network(), Discriminative(optimizers.Adam(0.1, weight_decay=0.1), {"head/": 1.0, ".*": 0.1}))
    model.fit(x, y, 8, 1, verbose=0)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    assert loaded.optimizer.multipliers == {"head/": 1.0, ".*": 0.1}
    loaded.fit(x, y, 8, 1, verbose=0)
    assert loaded.optimizer._assigned == (0.1, 0.1, 1.0, 1.0)


def test_built_optimizer_is_refused():
    inner = keras.optimizers.Adam()
    inner.build(variables())
    with pytest.raises(ValueError, match="has not been built"):
        Discriminative(inner, {".*": 1.0})


def test_stages_are_those_of_the_models_data_format_whatever_the_default():
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", data_format="channels_last")(images)
    x = keras.layers.Conv2D(8, 3, padding="same", data_format="channels_last")(x)
    model = keras.Model(images, x)
    expected = layerwise_decay(model, 0.5)
    keras.config.set_image_data_format("channels_first")
    try:
        assert layerwise_decay(model, 0.5) == expected
    finally:
        keras.config.set_image_data_format("channels_last")
    assert set(expected.values()) == {0.5**0}
