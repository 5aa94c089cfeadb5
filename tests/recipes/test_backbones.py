"""Backbones by name, file and model: the right preprocessing inside, the stages from the graph, honest errors."""

import keras
import numpy as np
import pytest
from assertions import Ending, rejects
from makers import small_network

from recipes import BackboneError
from recipes.networks.backbones import constructors, parse_call, preprocessing, resolve
from recipes.networks.classifier import logits_model, with_probabilities
from recipes.networks.convnet import convnet
from recipes.networks.data_format import channels_first_layer
from recipes.networks.fully_convolutional import dense_model
from recipes.networks.preprocessing import preprocessing_of
from recipes.networks.stages import stages
from recipes.probing.features import stage_model


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("ResNet50", ("ResNet50", {})),
        ("MobileNetV2(alpha=0.35)", ("MobileNetV2", {"alpha": 0.35})),
        ("A(weights=None, b=[1, 'x'])", ("A", {"weights": None, "b": [1, "x"]})),
    ],
)
def test_parse_call(call, expected):
    assert parse_call(call) == expected


@pytest.mark.parametrize("call", ["MobileNetV2(0.35)", "__import__('os').system('x')", "A(b=print())", "a b", "A.b()"])
def test_calls_that_are_not_literal_are_rejected(call):
    with rejects(BackboneError, "backbone.call"):
        parse_call(call)


def test_a_model_computes_in_the_chosen_precision_whatever_it_was_made_in(tmp_path):
    """Unless its layers differ."""
    model = small_network()
    nested = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 1), keras.Sequential([model])])
    compute = lambda network: {layer.compute_dtype for layer in network.layers[1:]}  # noqa: E731
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        made, glyphs = resolve(model).network, resolve("glyphs").network
        assert compute(made) == compute(glyphs) == {"bfloat16"} and {w.dtype for w in made.weights} == {"float32"}
        assert made(np.zeros((1, 32, 32, 3), "uint8")).dtype == "bfloat16"
        assert resolve(nested).network(np.zeros((1, 32, 32, 3))).dtype == "bfloat16"
        made.save(tmp_path / "made.keras")
        model.layers[-1].dtype_policy = keras.DTypePolicy("mixed_float16")
        assert compute(resolve(model).network) == {"float32", "float16"}
        keras.config.set_dtype_policy("float32")
        assert compute(resolve(tmp_path / "made.keras").network) == {"float32"}
    finally:
        keras.config.set_dtype_policy(before)


def test_unknown_name_offers_close_ones():
    with rejects(BackboneError, "backbone.unknown") as caught:
        resolve("MobileNetV9")
    assert "MobileNetV2" in caught.value.close


def test_arguments_that_the_recipe_sets():
    with rejects(BackboneError, "backbone.argument", fields=["include_top"]):
        resolve("MobileNetV2(include_top=True)")


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "ResNet50V2", "DenseNet121", "VGG16", "ConvNeXtTiny"])
def test_preprocessing_is_that_of_keras(name):
    import importlib

    constructor = constructors()[name]
    theirs = importlib.import_module(constructor.__module__).preprocess_input
    images = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype("float32")
    ours = keras.ops.convert_to_tensor(images)
    for layer in preprocessing(constructor, rescales=False):
        ours = layer(ours)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), theirs(images.copy()), atol=2e-4)


@pytest.mark.parametrize(
    ("call", "layers"),
    [("MobileNetV3Small(weights=None)", 0), ("EfficientNetV2B0(weights=None)", 0), ("ResNet50V2(weights=None)", 1)],
)
def test_no_second_preprocessing_where_the_network_has_its_own(call, layers):
    backbone = resolve(call)
    assert len(backbone.preprocessing) == layers
    assert not backbone.pretrained


def test_stages_end_at_each_stride():
    network = resolve("MobileNetV2(alpha=0.35, weights=None)").network
    model = keras.Model(network.inputs, stages(network, 96))
    assert [shape[1] for shape in model.compute_output_shape((1, 96, 96, 3))] == [48, 24, 12, 6, 3]


def test_a_keras_file_and_a_head_cut_off(tmp_path):
    network = small_network(tmp_path / "body.keras")
    x = keras.layers.GlobalAveragePooling2D()(network.outputs[0])
    classifier = keras.Model(network.inputs, keras.layers.Dense(7, activation="softmax")(keras.layers.Dropout(0.1)(x)))
    assert resolve(str(tmp_path / "body.keras")).network.output_shape == (None, None, None, 16)
    assert resolve(classifier).network.output_shape == (None, 16)
    layers_in_a_row = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3)])
    assert resolve(layers_in_a_row).activations(32) >= 4 * 4 * 30**2


def test_keras_cv_backbone_built_by_the_caller():
    keras_cv = pytest.importorskip("keras_cv")
    model = keras_cv.models.ResNetV2Backbone(
        stackwise_filters=[8, 16], stackwise_blocks=[2, 2], stackwise_strides=[1, 2], include_rescaling=True
    )
    assert len(resolve(model).network.outputs) == 1


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda root: 3, "backbone.type"),
        (lambda root: root / "none.keras", "backbone.missing"),
        (lambda root: (root / "bad.keras").write_bytes(b"x") and root / "bad.keras", "backbone.file"),
        (lambda root: root, "backbone.folder"),
        (lambda root: keras.Sequential([keras.layers.Dense(3)]), "backbone.not_functional"),
        (lambda root: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "backbone.input"),
    ],
)
def test_no_backbone(tmp_path, make, code):
    with rejects(BackboneError, code):
        resolve(make(tmp_path))


def test_weights_that_cannot_be_downloaded(monkeypatch):
    """Never a random initialisation: the file, the folder and the way out are named."""

    def unreachable(*arguments, **options):
        url = "https://storage.googleapis.com/tensorflow/keras-applications/weights_small.h5"
        raise Exception(f"URL fetch failure on {url}: None -- Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", unreachable)
    with rejects(BackboneError, "backbone.weights", file="weights_small.h5", folder=Ending("models"), match="glyphs"):
        resolve("MobileNetV3Small")


class Backbone(keras.Model):
    """Stands in for a network of KerasHub."""


Backbone.__module__ = "keras_hub.src.models.resnet.resnet_backbone"


def foreign(**options):
    images = keras.Input((None, None, 3))
    return Backbone(images, keras.layers.Conv2D(4, 3)(images), **options)


def test_a_network_of_kerashub_needs_the_preprocessing_of_its_preset():
    model = foreign(name="res_net_backbone")
    for network in (model, foreign(name="mobile_net_backbone")):  # nor is it that of keras.applications
        with rejects(BackboneError, "backbone.keras_hub", match=r"ImageConverter\.from_preset"):
            preprocessing_of(network)
    images = keras.Input((None, None, 3))
    wrapped = keras.Model(images, model(keras.layers.Rescaling(1 / 255)(images)), name="mine")
    assert preprocessing_of(wrapped) == ()


@pytest.mark.parametrize("rescaled", [True, False])
def test_keras_cv_without_rescaling_takes_0_to_1(rescaled):
    """Whatever its name: "mobilenetv3small_backbone" is no MobileNetV3 of keras.applications."""
    keras_cv = pytest.importorskip("keras_cv")
    images = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    made = {flag: keras_cv.models.ResNetV2Backbone(
        stackwise_filters=[8, 16], stackwise_blocks=[2, 2], stackwise_strides=[1, 2], include_rescaling=flag,
        name="mobilenetv3small_backbone") for flag in (True, False)}  # fmt: skip
    made[False].set_weights(made[True].get_weights())
    backbone = resolve(made[rescaled])
    assert len(backbone.preprocessing) == (0 if rescaled else 1)
    np.testing.assert_allclose(backbone(images), made[True](images), atol=1e-5)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0"])
def test_a_network_without_the_preprocessing_that_belongs_into_it_is_rejected(name):
    with rejects(BackboneError, "backbone.argument", fields=["include_preprocessing"]):
        resolve(f"{name}(weights=None, include_preprocessing=False)")
    model = constructors()[name](weights=None, include_top=False, include_preprocessing=False)
    with rejects(BackboneError, "backbone.no_rescaling"):
        resolve(model)


def wrapped(network, *before):
    images = keras.Input((64, 64, 3))
    x = images
    for layer in before:
        x = layer(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(network(x)), name="wrapper")


def test_a_nested_network_gets_its_preprocessing():
    network = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    (layer,) = preprocessing_of(wrapped(network))
    assert (layer.scale, layer.offset) == (pytest.approx(1 / 127.5), -1)
    flip = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip()])
    assert len(preprocessing_of(wrapped(network, flip))) == 1
    assert preprocessing_of(wrapped(network, flip, keras.layers.Rescaling(1 / 127.5, -1))) == ()


def test_a_nested_network_of_kerashub_is_rejected_too():
    network = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    network.__class__ = type("Backbone", (type(network),), {"__module__": "keras_hub.src.models"})
    with rejects(BackboneError, "backbone.keras_hub"):
        preprocessing_of(wrapped(network))


def test_a_path_that_does_not_exist_is_called_so():
    with rejects(BackboneError, "backbone.missing", path="runs/first"):
        resolve("runs/first")


def test_pixels_that_the_network_rescales_by_operations_are_not_rescaled_twice():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.Conv2D(4, 3)(images / 127.5 - 1), name="mobilenetv2_mine")
    assert resolve(model).preprocessing == ()
    plain = keras.Model(images, keras.layers.Conv2D(4, 3)(images), name="mobilenetv2_mine")
    assert len(resolve(plain).preprocessing) == 1


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_networks_and_pools_are_channels_last_whatever_keras_json_says(channels_first):
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    for name in ("MobileNetV2(alpha=0.35, weights=None)", "ResNet50(weights=None)", "glyphs"):
        backbone = resolve(name)
        size = backbone.fixed_size or 64
        model, _ = stage_model(backbone, size)
        assert channels_first_layer(model) is None and keras.config.image_data_format() == "channels_first"
        outputs = model(images[:, :size, :size])
        features = backbone(images[:, :size, :size])
        np.testing.assert_allclose(outputs[-1], keras.ops.mean(features, (1, 2)), rtol=1e-4, atol=1e-5)
    assert channels_first_layer(convnet(32)) is None
    classifier = logits_model(resolve("MobileNetV2(alpha=0.35, weights=None)"), 3, 64)
    assert channels_first_layer(dense_model(with_probabilities(classifier, mirror=True), 64)) is None


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "DenseNet121"])
def test_preprocessing_is_channels_last_whatever_keras_json_says(channels_first, name):
    with_last = [layer.get_config() for layer in preprocessing(constructors()[name], rescales=False)]
    keras.config.set_image_data_format("channels_last")
    assert [layer.get_config() for layer in preprocessing(constructors()[name], rescales=False)] == with_last


def test_a_network_of_channels_first_is_rejected(channels_first):
    images = keras.Input((32, 32, 3))
    inner = keras.layers.MaxPooling2D(name="mine")(keras.layers.Permute((3, 1, 2))(images))
    model = keras.Model(images, keras.layers.Permute((2, 3, 1))(inner))
    with rejects(BackboneError, "backbone.channels_first", layer="mine"):
        resolve(model)
