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
}


def variables():
    return [keras.Variable(np.full((2, 3), i + 1.0), name=f"kernel_{i}") for i in range(3)]


def step(optimizer, targets, gradients):
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(g * (i + 1)) for i in range(len(targets))], targets)


GRADIENTS = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")


@pytest.mark.parametrize("make", INNER.values(), ids=INNER.keys())
def test_multiplier_is_the_rate(make):
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
        ({".*": 1.0, "kernel_0": 2.0}, "'kernel_0' comes too late"),
        ({".*": -1.0}, "must not be negative"),
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


def test_built_optimizer_is_refused():
    inner = keras.optimizers.Adam()
    inner.build(variables())
    with pytest.raises(ValueError, match="has not been built"):
        Discriminative(inner, {".*": 1.0})
