"""Noise put into pretrained families and user models: the right places, the same inference, the same weights."""

import keras
import numpy as np
import pytest

import layers
from layers.noise import drops_branches, noise_layers, noise_rate, training_mode
from layers.residual import residual_branches

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the graph is the same on all backends")
FAMILIES = {  # constructor, its arguments, residual sums counted in the paper's tables
    "MobileNetV2": ({"alpha": 0.35}, 10),
    "ResNet50V2": ({}, 16),
    "EfficientNetV2B0": ({}, 15),
    "ConvNeXtTiny": ({}, 18),
    "MobileNetV3Small": ({}, 6),
    "ResNet50": ({}, 16),
    "EfficientNetB0": ({}, 9),
    "Xception": ({"input_shape": (71, 71, 3)}, 12),
}


def build(name):
    arguments, _ = FAMILIES[name]
    arguments = {"input_shape": (64, 64, 3), "weights": None, "classes": 3, "classifier_activation": None, **arguments}
    return getattr(keras.applications, name)(**arguments)


def randomize_statistics(model):
    """So that a layer out of place would show."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def images(model):
    return np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")


def outputs(model):
    return model(images(model), training=False).numpy()


def small(width=4):
    """Two residual blocks, the first with a projection, and a + written as an operation."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="stem")(inputs)
    y = keras.layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu", name="a1")(x)
    y = keras.layers.Conv2D(2 * width, 3, padding="same", name="a2")(y)
    x = keras.layers.Add(name="first")([keras.layers.Conv2D(2 * width, 1, strides=2, name="projection")(x), y])
    x = x + keras.layers.Conv2D(2 * width, 3, padding="same", name="b1")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="small")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families_get_linear_rates_and_keep_their_inference(name):
    model = build(name)
    randomize_statistics(model)
    noisy = layers.add_stochastic_depth(model, 0.31)
    rates = layers.linear_rates(FAMILIES[name][1], 0.31)
    assert [noise_rate(layer) for layer in noise_layers(noisy) if drops_branches(layer)] == rates
    np.testing.assert_array_equal(outputs(noisy), outputs(model))
    with training_mode(noisy):  # noise alone: BatchNormalization would differ by itself
        first, second = outputs(noisy), outputs(noisy)
    assert np.abs(first - second).max() > 0
    np.testing.assert_array_equal(outputs(noisy), outputs(model))
    assert {id(weight) for weight in noisy.weights} == {id(weight) for weight in model.weights}


def test_existing_noise_is_retuned_not_doubled_and_the_original_keeps_its_rates():
    model = build("EfficientNetV2B0")
    before = [(layer.name, noise_rate(layer)) for layer in noise_layers(model)]
    noisy = layers.add_stochastic_depth(model, 0.5)
    assert [layer.name for layer in noise_layers(noisy)] == [name for name, _ in before]
    assert not any(isinstance(layer, layers.StochasticDepth) for layer in noisy.layers)
    assert [(layer.name, noise_rate(layer)) for layer in noise_layers(model)] == before
    again = layers.add_stochastic_depth(layers.add_stochastic_depth(small(), 0.5), 0.2)
    assert [layer.rate for layer in noise_layers(again)] == [0.1, 0.2]


def test_the_branch_is_dropped_not_the_shortcut():
    model = small()
    noisy = layers.add_stochastic_depth(model, 0.999)
    x = images(model)
    stem = keras.Model(model.input, model.get_layer("projection").output)(x)
    head = model.get_layer("head")
    shortcut_only = head(keras.layers.GlobalAveragePooling2D()(stem)).numpy()
    kept = sum(np.allclose(noisy(x, training=True).numpy()[0], shortcut_only[0], atol=1e-5) for _ in range(40))
    assert kept > 5  # both branches dropped with probability about ½


def test_copied_weights_are_equal_and_independent():
    for name in ("ResNet50V2", "MobileNetV3Small"):
        model = build(name)
        randomize_statistics(model)
        copied = layers.add_stochastic_depth(model, 0.2, copy=True)
        before = outputs(model)
        np.testing.assert_array_equal(outputs(copied), before)
        for weight in copied.weights:
            weight.assign(weight + 1)
        np.testing.assert_array_equal(outputs(model), before)


@pytest.mark.parametrize("surgery", [layers.add_stochastic_depth, layers.add_drop_connect, layers.set_dropout])
def test_adapted_normalization_is_copied(surgery):
    x, normalization = keras.Input((4,)), keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 3, (100, 4)))
    x_1 = normalization(x)
    model = keras.Model(x, dense(2)(x_1 + dense()(x_1)))
    assert_same_inference(surgery(model, 0.2, copy=True), model)


def test_nested_and_sequential_models():
    base = small()
    inputs = keras.Input((8, 8, 3))
    nested = keras.Model(inputs, keras.layers.Softmax()(base(keras.layers.Rescaling(1 / 255)(inputs), training=False)))
    sequential = keras.Sequential([keras.Input((8, 8, 3)), base, keras.layers.Dense(2)])
    for model in (nested, sequential):
        noisy = layers.add_stochastic_depth(model, 0.4)
        assert [layer.rate for layer in noise_layers(noisy)] == [0.2, 0.4]
        np.testing.assert_array_equal(outputs(noisy), outputs(model))
        assert not noise_layers(model)


@pytest.mark.parametrize("surgery", [layers.add_stochastic_depth, layers.add_drop_connect, layers.set_dropout])
@pytest.mark.parametrize("copy", [False, True])
def test_files_training_and_inference_after_every_surgery(surgery, copy, tmp_path):
    model = small()
    noisy = surgery(model, 0.4, copy=copy)
    np.testing.assert_array_equal(outputs(noisy), outputs(model))
    noisy.save(tmp_path / "noisy.keras")
    np.testing.assert_array_equal(outputs(keras.saving.load_model(tmp_path / "noisy.keras")), outputs(noisy))
    shared = {id(weight) for weight in noisy.weights} & {id(weight) for weight in model.weights}
    assert bool(shared) is not copy
    noisy.compile("sgd", "mse")
    assert np.isfinite(noisy.train_on_batch(images(model) / 255, np.zeros((2, 3))))


def test_drop_connect_goes_where_it_is_told():
    model = small()
    default = layers.add_drop_connect(model, 0.5)
    assert [layer.layer.name for layer in noise_layers(default)] == ["head"]
    chosen = layers.add_drop_connect(model, 0.5, where=lambda layer: isinstance(layer, keras.layers.Conv2D))
    assert {layer.layer.name for layer in noise_layers(chosen)} == {"stem", "a1", "a2", "b1", "projection"}
    assert chosen.get_layer("a1_drop_connect").layer is model.get_layer("a1")
    retuned = layers.add_drop_connect(default, 0.1)
    assert [(type(layer), layer.rate) for layer in noise_layers(retuned)] == [(layers.DropConnect, 0.1)]
    assert default.get_layer("head").rate == 0.5


def test_drop_connect_keeps_the_names_of_outputs():
    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(2, name=name)(dense()(x)) for name in "ab"])
    noisy = layers.add_drop_connect(model, 0.3)
    assert noisy.output_names == model.output_names == ["a", "b"]
    noisy.compile("sgd", loss={"a": "mse", "b": "mse"})
    noisy.train_on_batch(np.ones((2, 4)), {"a": np.ones((2, 2)), "b": np.ones((2, 2))})


def test_set_dropout_sets_what_is_there_and_leaves_branch_dropout():
    model = build("EfficientNetV2B0")
    noisy = layers.set_dropout(model, 0.7)
    rates = {layer.name: noise_rate(layer) for layer in noise_layers(noisy)}
    original = {layer.name: noise_rate(layer) for layer in noise_layers(model)}
    assert rates == {**original, "top_dropout": 0.7}
    added = layers.set_dropout(small(), 0.3)
    assert [type(layer) for layer in noise_layers(added)] == [keras.layers.Dropout]


def test_sums_that_are_not_residual_are_left_alone():
    inputs = keras.Input((4,))
    towers = keras.layers.Add()([keras.layers.Dense(3)(keras.layers.Dense(5)(inputs)) for _ in range(2)])
    assert residual_branches(keras.Model(inputs, towers)) == []
    plain = keras.Sequential([inputs, keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="has no residual branches"):
        layers.add_stochastic_depth(plain, 0.2)
    with pytest.raises(ValueError, match="no residual branches"):
        layers.add_stochastic_depth(keras.applications.VGG16(weights=None, include_top=False), 0.2)


def test_surgery_names_what_it_cannot_do():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    for surgery in (layers.add_stochastic_depth, layers.add_drop_connect, layers.set_dropout):
        with pytest.raises(TypeError, match="a Functional or a built Sequential model"):
            surgery(Subclassed(), 0.2)
        with pytest.raises(ValueError, match="probability of dropping"):
            surgery(small(), 1.0)
    with pytest.raises(ValueError, match="no layer of model 'small' is selected"):
        layers.add_drop_connect(small(), 0.2, where=lambda layer: False)


def test_residual_layers_are_retuned():
    blocks = [layers.StochasticResidual(keras.layers.Dense(4), 0.1) for _ in range(2)]
    model = keras.Sequential([keras.Input((4,)), *blocks])
    noisy = layers.add_stochastic_depth(model, 0.4)
    assert [layer.rate for layer in noise_layers(noisy)] == [0.2, 0.4]
    assert [block.rate for block in blocks] == [0.1, 0.1]
    np.testing.assert_array_equal(noisy(np.ones((1, 4))), model(np.ones((1, 4))))


def test_describe_noise_prints_layer_rate_and_kind():
    lines = []
    layers.describe_noise(layers.add_drop_connect(layers.add_stochastic_depth(small(), 0.5), 0.25), lines.append)
    assert [line.split()[:3] for line in lines] == [
        ["first_stochastic_depth", "StochasticDepth", "0.25"],
        [lines[1].split()[0], "StochasticDepth", "0.5"],
        ["head", "DropConnect", "0.25"],
    ]
    assert lines[2].endswith("weights of Dense head, per batch")
    lines.clear()
    layers.describe_noise(small(), lines.append)
    assert lines == ["small: no layer injects noise."]


def dense(width=4):
    return keras.layers.Dense(width)


def rates(model):
    return [(type(layer).__name__, layer.rate) for layer in noise_layers(model)]


def assert_same_inference(noisy, model):
    x = [np.random.default_rng(0).normal(size=(2, *i.shape[1:])).astype("float32") for i in model.inputs]
    x = x if len(x) > 1 else x[0]
    np.testing.assert_array_equal(noisy(x), model(x))


def test_sums_of_functions_of_different_inputs_are_not_residual():
    a, b = keras.Input((4,)), keras.Input((4,))
    for summands in ([a, dense()(b)], [dense()(a), dense()(dense()(b))], [dense()(b), dense()(dense()(a))]):
        assert residual_branches(keras.Model([a, b], keras.layers.Add()(summands))) == []
    crossed = dense()(keras.layers.Concatenate()([a, dense()(dense()(b))]))  # as cross-attention: of a, and of b too
    (branch,) = residual_branches(keras.Model([a, b], a + crossed))
    assert branch.index == 1


def conv(*arguments, **options):
    return keras.layers.Conv2D(*arguments, padding="same", **options)


BRANCHES = {  # what is added to x, and how many residual sums there are then
    "pooling": lambda x: x + keras.layers.AveragePooling2D(3, 1, "same")(keras.layers.LayerNormalization()(x)),
    "activation": lambda x: keras.layers.Activation("relu")(x) + x,
    "separable projection": lambda x: (
        keras.layers.SeparableConv2D(8, 1, strides=2)(x) + conv(8, 3)(conv(8, 3, strides=2)(x))
    ),
    "nested branch": lambda x: (
        conv(8, 1, strides=2)(x) + keras.Sequential([keras.Input(x.shape[1:]), conv(8, 3, strides=2), conv(8, 3)])(x)
    ),
    "kernels before the pooling": lambda x: x + keras.layers.AveragePooling2D(3, 1, "same")(conv(4, 1)(x)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_of_all_kinds_are_found(name):
    x = keras.Input((8, 8, 4))
    (branch,) = residual_branches(keras.Model(x, BRANCHES[name](x)))
    assert branch.index == (0 if name == "activation" else 1)


def test_three_summands_and_sums_of_sums_have_two_branches():
    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Add(name="sum")([dense()(dense()(x)), x, dense()(x)]))
    noisy = layers.add_stochastic_depth(model, 0.4)
    assert rates(noisy) == [("StochasticDepth", 0.4)] * 2  # one sum, one rate
    assert_same_inference(noisy, model)
    for f, g in ((dense()(x), dense()(dense()(x))), (dense()(dense()(x)), dense()(x))):
        chained = keras.Model(x, x + f + g)
        assert [branch.index for branch in residual_branches(chained)] == [1, 1]
        assert rates(layers.add_stochastic_depth(chained, 0.4)) == [("StochasticDepth", 0.2), ("StochasticDepth", 0.4)]


def test_the_top_down_sums_of_a_feature_pyramid_are_not_residual():
    inputs = keras.Input((16, 16, 3))
    c2 = keras.layers.Conv2D(8, 3, strides=4, padding="same")(inputs)
    c3 = keras.layers.Conv2D(8, 3, strides=2, padding="same")(c2)
    p3 = keras.layers.Conv2D(4, 1)(c3)
    p2 = keras.layers.Conv2D(4, 1)(c2) + keras.layers.UpSampling2D()(p3)
    heads = [keras.layers.Conv2D(2, 1)(p) for p in (p2, p3)]
    assert residual_branches(keras.Model(inputs, heads)) == []


def test_shared_sums_and_shared_networks(tmp_path):
    x, add = keras.Input((4,)), keras.layers.Add(name="add")
    y = add([x, dense()(x)])
    reused = keras.Model(x, add([y, dense()(y)]))
    base, i, j = keras.Model(x, x + dense()(x)), keras.Input((4,)), keras.Input((4,))
    in_a_row = keras.Model(i, base(base(i)))
    siamese = keras.Model([i, j], keras.layers.Concatenate()([base(i), base(j)]))
    for model, expected in ((reused, [0.2, 0.4]), (in_a_row, [0.4]), (siamese, [0.4])):
        noisy = layers.add_stochastic_depth(model, 0.4)
        assert [rate for _, rate in rates(noisy)] == expected
        assert_same_inference(noisy, model)
        noisy.save(tmp_path / "noisy.keras")
        assert_same_inference(keras.saving.load_model(tmp_path / "noisy.keras"), model)


@pytest.mark.parametrize(
    "after",
    [
        lambda y: keras.layers.BatchNormalization()(y),
        lambda y: keras.layers.ReLU()(2.0 * y),
        lambda y: y * keras.layers.GlobalAveragePooling2D(keepdims=True)(y),  # squeeze and excite
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_noise_anywhere_on_a_branch_is_retuned(after, nested):
    drop = keras.layers.Dropout(0.3, noise_shape=(None, 1, 1, 1), name="drop")
    x = keras.Input((4, 4, 3))
    y = after(drop(keras.layers.Conv2D(3, 3, padding="same")(x)))
    model = keras.Model(x, x + (keras.Model(x, y)(x) if nested else y))
    noisy = layers.add_stochastic_depth(model, 0.1)
    assert rates(noisy) == [("Dropout", 0.1)]
    assert_same_inference(noisy, model)
    assert drop.rate == 0.3


class DropPath(keras.layers.Layer):
    """As other houses have it: another name for the rate, or none."""

    def __init__(self, **kwargs):
        self.options = {name: kwargs.pop(name) for name in ("drop_prob", "drop_rate", "keep") if name in kwargs}
        super().__init__(**kwargs)
        vars(self).update(self.options)

    def call(self, x, training=None):
        return 0 * x if training else x

    def get_config(self):
        return {**super().get_config(), **self.options}


@pytest.mark.parametrize("option", ["drop_prob", "drop_rate"])
def test_noise_of_other_houses_is_retuned(option):
    x = keras.Input((4,))
    model = keras.Model(x, x + DropPath(**{option: 0.1})(dense()(x)))
    assert noise_rate(noise_layers(model)[0]) == 0.1
    noisy = layers.add_stochastic_depth(model, 0.2)
    assert [noise_rate(layer) for layer in noise_layers(noisy)] == [0.2]
    unknown = keras.Model(x, x + DropPath(keep=0.9, name="odd")(dense()(x)))
    with pytest.raises(ValueError, match=r"rate of DropPath 'odd' cannot be set.*'keep'.*drop_prob"):
        layers.add_stochastic_depth(unknown, 0.2)


def test_noise_shared_by_branches_is_warned_of():
    x = keras.Input((4,))
    drop = layers.StochasticDepth(0.1, name="shared")
    y = x + drop(dense()(x))
    with pytest.warns(UserWarning, match="'shared' drops several branches"):
        noisy = layers.add_stochastic_depth(keras.Model(x, y + drop(dense()(y))), 0.4)
    assert rates(noisy) == [("StochasticDepth", 0.4)]


def test_noise_that_leaves_a_way_around_it_is_another_branchs():
    x = keras.Input((4,))
    y = dense()(x)
    model = keras.Model(x, x + (y + layers.StochasticDepth(0.3)(dense()(y))))
    assert [rate for _, rate in rates(layers.add_stochastic_depth(model, 0.1))] == [0.05, 0.1]


def test_the_documented_sequence_of_surgeries():
    model = build("ResNet50V2")
    noisy = layers.add_stochastic_depth(model, 0.2)
    noisy = layers.add_drop_connect(noisy, 0.3, where=lambda layer: layer.name == "predictions")
    noisy = layers.set_dropout(noisy, 0.5)
    assert rates(noisy)[-2:] == [("Dropout", 0.5), ("DropConnect", 0.3)]
    assert len(noise_layers(noisy)) == 18
    np.testing.assert_array_equal(outputs(noisy), outputs(model))


def test_drop_paths_of_convnext_are_retuned():
    model = keras.src.applications.convnext.ConvNeXt(
        [1, 2, 1, 1], [4, 8, 8, 8], 0.3, weights=None, input_shape=(32, 32, 3), classes=3, name="tiny"
    )
    noisy = layers.add_stochastic_depth(model, 0.1)
    assert [noise_rate(layer) for layer in noise_layers(noisy)] == layers.linear_rates(5, 0.1)
    np.testing.assert_array_equal(outputs(noisy), outputs(model))
