"""Grad-CAM: where the classifier looks, against the closed form of networks that average their last feature map."""

import keras
import numpy as np
import pytest
from assertions import rejects
from makers import small_network

import recipes
from recipes.networks.backbones import resolve
from recipes.networks.classifier import logits_model, recalibrated, with_probabilities
from recipes.networks.grad_cam import grad_cam

SIZE = 32
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype(np.float32)


def closed_form(network, kernel, images, classes) -> np.ndarray:
    """relu(Σ_k w_k A_k), enlarged, scaled to 1: of an average and a linear classifier (Zhou et al. 2016)."""
    maps = np.maximum(np.einsum("nhwk,kn->nhw", network.predict(images, verbose=0), kernel[:, classes]), 0)
    heat = keras.ops.convert_to_numpy(keras.ops.image.resize(maps[..., None], (SIZE, SIZE)))[..., 0]
    return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-30)


@pytest.mark.parametrize("mirror", [False, True])
def test_it_is_the_class_activation_map_of_a_network_that_averages(mirror):
    network, classes = small_network(), np.array([0, 1, 2, 0])
    model = logits_model(resolve(network), 3, SIZE)
    kernel = model.get_layer("logits").get_weights()[0]
    classifier = recalibrated(with_probabilities(model, mirror=mirror, temperature=2.0), 1.5)
    expected = closed_form(network, kernel, IMAGES, classes)
    assert expected.any((1, 2)).sum() >= 2
    np.testing.assert_allclose(grad_cam(classifier, IMAGES, classes), expected, atol=1e-5)


def test_of_several_stages_the_deepest_speaks():
    network = small_network()
    model = logits_model(resolve(network), 3, SIZE, taps=(0, 1))
    kernel = model.get_layer("logits").get_weights()[0][8:]  # 8 channels are the first stage's
    expected = closed_form(network, kernel, IMAGES, np.array([0, 1, 2, 0]))
    np.testing.assert_allclose(grad_cam(with_probabilities(model), IMAGES, [0, 1, 2, 0]), expected, atol=1e-5)


def test_a_network_that_ends_in_a_vector_has_one_and_of_several_models_the_first_is_asked():
    network = small_network()
    vector = keras.Model(network.inputs, keras.layers.GlobalMaxPooling2D()(network.outputs[0]))
    models = [logits_model(resolve(vector), 3, SIZE, seed=seed) for seed in (0, 1)]
    heat = grad_cam(with_probabilities(models), IMAGES, [0, 1, 2, 0])
    assert heat.shape == (4, SIZE, SIZE) and heat.min() >= 0 and heat.max() == 1
    np.testing.assert_array_equal(heat, grad_cam(with_probabilities(models[0]), IMAGES, [0, 1, 2, 0]))


def test_without_feature_maps_it_says_so():
    flat = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(3, name="logits")]
    )
    model = keras.Model(flat.inputs, keras.layers.Rescaling(1.0)(flat.outputs[0]))
    for network, code in ((model, "backbone.no_feature_map"), (small_network(), "backbone.no_logits")):
        with rejects(recipes.BackboneError, code):
            grad_cam(network, IMAGES, [0, 1, 2, 0])
