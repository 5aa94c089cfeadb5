"""Networks without their classifiers: heads of every kind, runs, and what can only be rejected."""

import keras
import numpy as np
import pytest
from assertions import rejects
from makers import arrays, small_network

import layers
import recipes
from recipes import BackboneError
from recipes.networks.backbones import resolve
from recipes.networks.classifier import logits_model, with_probabilities

L = keras.layers
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


def array(x):
    return keras.ops.convert_to_numpy(x)


def pooled(network):
    return L.GlobalAveragePooling2D()(network.outputs[0])


def model_of(head):
    """small_network with `head` (its outputs → the model's) on it, and its own outputs."""
    network = small_network()
    return keras.Model(network.inputs, head(network)), network


def lenet_like(network):
    x = L.Conv2D(5, 3, activation="sigmoid", name="feature")(network.outputs[0])
    return L.Dense(3)(L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(x)))


HEADS = {  # on the pooled features unless they say otherwise
    "Dense": lambda net: L.Dense(3)(pooled(net)),
    "two Dense and a normalization": lambda net: L.Softmax()(
        L.Dense(3)(L.BatchNormalization()(L.Dense(8, activation="relu")(pooled(net))))
    ),
    "temperature": lambda net: L.Softmax()(L.Rescaling(0.5)(L.Dense(3)(pooled(net)))),
    "softmax as an operation": lambda net: keras.ops.softmax(L.Dense(3)(L.Dropout(0.5)(pooled(net)))),
    "wrapped Dense": lambda net: L.Softmax()(layers.DropConnect(L.Dense(3), 0.5)(pooled(net))),
    "a nested head": lambda net: keras.Sequential([keras.Input((16,)), L.Dense(8), L.Dense(3, "softmax")])(pooled(net)),
    "a head on a head": lambda net: L.Dense(2)(keras.ops.softmax(L.Dense(3)(pooled(net)))),
    "binary": lambda net: L.Dense(1, activation="sigmoid")(pooled(net)),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_features_below_a_head_are_what_is_left(head):
    model, network = model_of(head)
    expected = array(network(IMAGES)).mean((1, 2))
    np.testing.assert_allclose(array(resolve(model).network(IMAGES)), expected, rtol=1e-5)


def test_a_head_within_the_nested_network_is_cut_there():
    inner, network = model_of(HEADS["two Dense and a normalization"])
    images = keras.Input((32, 32, 3))
    found = resolve(keras.Model(images, inner(L.Rescaling(1.0)(images)))).network
    np.testing.assert_allclose(array(found(IMAGES)), array(network(IMAGES)).mean((1, 2)), rtol=1e-5)


MAPS = {  # heads of convolutions; the features are feature maps
    "convolution, pool, softmax": lambda net: L.Softmax()(L.GlobalAveragePooling2D()(L.Conv2D(3, 1)(net.outputs[0]))),
    "softmax of every pixel": lambda net: L.Conv2D(3, 1, activation="softmax")(net.outputs[0]),
}


@pytest.mark.parametrize("head", MAPS.values(), ids=MAPS)
def test_a_convolution_that_scores_classes_is_cut(head):
    model, network = model_of(head)
    np.testing.assert_allclose(array(resolve(model).network(IMAGES)), array(network(IMAGES)), rtol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", None])
def test_mobilenets_head_of_convolutions_is_cut(activation):
    for name, channels in (("MobileNet", 1024), ("MobileNetV3Small", 576)):
        options = {"weights": None, "input_shape": (64, 64, 3), "classifier_activation": activation}
        model = getattr(keras.applications, name)(**options)
        assert resolve(model).network.output_shape == (None, 1, 1, channels)


def test_features_are_not_cut():
    """Feature maps of one cell, sigmoid activations below the head, convolutions and gates at the end."""
    images = keras.Input((8, 8, 3))
    one_cell = L.Conv2D(6, 1)(L.Conv2D(5, 3, strides=8, padding="same")(images))
    assert resolve(keras.Model(images, one_cell)).network.output_shape == (None, 1, 1, 6)
    assert resolve(model_of(lenet_like)[0]).network.output_shape == (None, 5)
    x = L.Conv2D(4, 3)(images)
    gate = L.Conv2D(4, 1, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(x))
    gated = keras.Model(images, L.GlobalAveragePooling2D()(L.Multiply()([x, gate])))
    np.testing.assert_allclose(array(resolve(gated).network(IMAGES[:, :8, :8])), array(gated(IMAGES[:, :8, :8])))


def test_a_saturated_gate_is_not_taken_for_probabilities():
    """On bright images its channels are 0 and three large negative numbers, as a saturated log-softmax's are."""
    images = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D(keepdims=True)(L.Conv2D(4, 3, use_bias=False)(images))
    gate = L.Conv2D(4, 1, use_bias=False, activation="sigmoid")(x)
    gated = keras.Model(images, L.Flatten()(L.Multiply()([x, gate])))
    gated.set_weights([-np.ones((3, 3, 3, 4)), np.ones((1, 1, 4, 4)) * [1, -1, -1, -1]])
    assert np.exp(array(gated(IMAGES[:, :8, :8]))).sum(-1) == pytest.approx(1)
    assert resolve(gated).network.output_shape == (None, 4)


REJECTED = {
    "mean of two softmaxes": lambda net: L.Average()([L.Dense(3, "softmax")(pooled(net)) for _ in range(2)]),
    "mean of two scores": lambda net: L.Average()([L.Dense(3)(pooled(net)) for _ in range(2)]),
    "pool of a softmax": lambda net: L.Maximum()([L.Softmax()(pooled(net)), L.Softmax()(pooled(net))]),
}


KERNEL = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


def own_softmax(x):
    x = keras.ops.exp(keras.ops.subtract(x, 1.0))
    return keras.ops.divide(x, keras.ops.sum(x, -1, keepdims=True))


def patches(network):
    return L.Reshape((-1, 16))(network.outputs[0])


UNUSUAL = {  # heads made of operations without weights, or of layers whose names do not say that they end in scores
    "matrix of constants": lambda net: keras.ops.matmul(pooled(net), KERNEL),
    "activation after constants": lambda net: L.ReLU()(keras.ops.matmul(pooled(net), KERNEL)),
    "convolution with an activation": lambda net: L.GlobalMaxPooling2D()(
        L.Conv2D(3, 1, activation="relu")(net.outputs[0])
    ),
    "mean over patches": lambda net: keras.ops.mean(L.Dense(3, activation="relu")(patches(net)), 1),
    "mean of the softmax of patches": lambda net: keras.ops.mean(own_softmax(L.Dense(3)(patches(net))), 1),
    "own softmax of many": lambda net: own_softmax(pooled(net)),
    "logarithm of a softmax of many": lambda net: keras.ops.log(own_softmax(pooled(net))),
}


@pytest.mark.parametrize("head", UNUSUAL.values(), ids=UNUSUAL)
def test_scores_and_probabilities_are_rejected_however_they_are_computed(head):
    with rejects(BackboneError, "backbone.scores"):
        resolve(model_of(head)[0])


@pytest.mark.parametrize("head", REJECTED.values(), ids=REJECTED)
def test_scores_of_several_layers_are_rejected(head):
    with rejects(BackboneError, "backbone.scores"):
        resolve(model_of(head)[0])


def test_dense_layers_on_pixels_keep_the_first_one():
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(5, "relu"), L.Dense(3, "softmax")])
    assert resolve(model).network.output_shape == (None, 5)
    with rejects(BackboneError, "backbone.scores"):
        resolve(keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(3, "softmax")]))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(Result with mirror images, its folder, its backbone)."""
    folder, network = tmp_path_factory.mktemp("run") / "run", small_network()
    recipe = recipes.adjusted("probe", size=32, mirror=True)
    return recipes.finetune(arrays(8), backbone=network, recipe=recipe, output=folder), folder, network


def test_a_run_as_backbone_is_its_network(run):
    result, folder, network = run
    for backbone in (result, folder, str(folder), folder / "model.keras", result.model):
        found = resolve(backbone)
        assert not found.preprocessing and found.network.output_shape == network.output_shape
        np.testing.assert_allclose(array(found(IMAGES)), array(network(IMAGES)), rtol=1e-5)
    assert resolve(result).name == "finetuned small"


def test_a_run_on_a_run_sees_the_stages_that_the_first_one_saw(run):
    result, _, network = run
    first, second = (recipes.probe(arrays(4), backbone=backbone) for backbone in (network, result))
    assert [stage.accuracy for stage in first.stages] == [stage.accuracy for stage in second.stages]


@pytest.mark.parametrize(("taps", "shape"), [((0, 1), (None, 8, 8, 16)), ((0,), (None, 16, 16, 8))])
def test_a_classifier_of_stages_is_cut_at_the_deepest(taps, shape):
    backbone = resolve(small_network())
    model = with_probabilities(logits_model(backbone, 3, 32, taps=taps), temperature=2.0)
    found = resolve(model).network
    assert found.compute_output_shape((None, 32, 32, 3)) == shape


def test_the_preprocessing_of_a_run_stays_outside_of_its_network():
    """ResNet's swaps channels by a Dense layer, which nothing may train."""
    images = keras.Input((None, None, 3))
    network = keras.Model(images, L.Conv2D(4, 3, strides=2)(images), name="resnet50_small")
    backbone = resolve(network)
    found = resolve(with_probabilities(logits_model(backbone, 3, 32), mirror=True))
    assert [type(layer).__name__ for layer in found.preprocessing] == ["Dense"]
    assert len(found.network.weights) == 2
    np.testing.assert_allclose(array(found(IMAGES)), array(backbone(IMAGES)), rtol=1e-5)


def test_several_networks_are_no_backbone(tmp_path):
    members = [logits_model(resolve(small_network(seed=seed)), 3, 32, seed=seed) for seed in range(2)]
    with rejects(BackboneError, "backbone.ensemble", members=2):
        resolve(with_probabilities(members))
    (tmp_path / "empty").mkdir()
    with rejects(BackboneError, "backbone.folder"):
        resolve(tmp_path / "empty")


def test_another_result_is_another_command(run):
    from recipes.planning.request import Request

    def words(backbone):
        return Request("photos", backbone, "few").command["backbone"]

    result = run[0]
    other = recipes.finetune(arrays(4), backbone=small_network(seed=3), recipe=recipes.adjusted("probe", size=32))
    assert words(result) == words(result) != words(other)


@keras.saving.register_keras_serializable("tests")
class Scores(L.Layer):
    """A head of one's own: a Dense layer inside a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scores = L.Dense(10)

    def build(self, shape):
        self.scores.build(shape)

    def call(self, x):
        return keras.ops.softmax(self.scores(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], 10)


FEW_SCORES = {
    "a layer of one's own": lambda net: Scores()(pooled(net)),
    "convolution, then pooling": lambda net: L.GlobalAveragePooling2D()(L.Conv2D(10, 1)(net.outputs[0])),
    "a map of scores": lambda net: L.Conv2D(10, 1)(net.outputs[0]),
    "Dense of a map, then pooling": lambda net: L.GlobalAveragePooling2D()(L.Dense(10)(net.outputs[0])),
    "an activation with weights": lambda net: L.GlobalAveragePooling2D()(
        L.PReLU(shared_axes=(1, 2))(L.Conv2D(10, 1)(net.outputs[0]))
    ),
}


@pytest.mark.parametrize("head", FEW_SCORES.values(), ids=FEW_SCORES)
def test_a_few_scores_that_cannot_be_cut_are_rejected(head):
    model, _ = model_of(head)
    with rejects(BackboneError, "backbone.scores"):
        resolve(model)
