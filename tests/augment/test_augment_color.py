"""Colour: one 3×4 matrix does what the transforms do one after another; PCA is numpy's."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import augment
from augment import IMAGENET_PCA, PCA, Policy, color
from augment.draws import uniforms

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(60, 190, (5, 24, 20, 3))
LUMA = np.array([0.299, 0.587, 0.114])


def step_by_step(image, brightness, contrast, saturation, hue, offset):
    """Each transform on the pixels of one image, in float64."""
    image = image * brightness
    mean = image.mean((0, 1))
    image = mean + contrast * (image - mean)
    grey = (image @ LUMA)[..., None]
    image = grey + saturation * (image - grey)
    angle, axis = np.deg2rad(hue), np.ones(3) / np.sqrt(3)  # Rodrigues' rotation formula
    along = (image @ axis)[..., None] * axis
    image = along + np.cos(angle) * (image - along) + np.sin(angle) * np.cross(axis, image)
    return np.clip(image + offset, 0, 255)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 1.0, 1.0, 0.0),
        (0.7, 1.0, 1.0, 0.0),
        (1.0, 1.3, 1.0, 0.0),
        (1.0, 1.0, 0.2, 0.0),
        (1.0, 1.0, 1.0, 40.0),
        (1.2, 0.6, 1.5, -25.0),
    ],
)
def test_one_matrix_agrees_with_the_steps_in_float64(values):
    brightness, contrast, saturation, hue = values
    policy = Policy(
        brightness=(brightness,) * 2, contrast=(contrast,) * 2, saturation=(saturation,) * 2, hue=(hue,) * 2, pca=0.0
    )
    oracle = [step_by_step(image, *values, 0) for image in IMAGES]

    def once(images):
        images = tf.cast(images, tf.float32)
        mean = tf.reduce_mean(images, (1, 2))
        return color.apply(images, color.draw_matrix(policy, uniforms(0, 0, tf.range(5)), mean, IMAGENET_PCA))

    np.testing.assert_allclose(once(IMAGES), oracle, atol=2e-3)
    in_tf_data = tf.data.Dataset.from_tensors(IMAGES).map(once).get_single_element()
    np.testing.assert_allclose(in_tf_data, oracle, atol=2e-3)


def test_the_whole_pipeline_applies_the_matrix_once():
    policy = Policy(
        16, (16, 16), flip=0.0, centre=True, contrast=(1.3, 1.3), hue=(15, 15), saturation=(0.7, 0.7), pca=0.0
    )
    images = RNG.integers(50, 200, (4, 16, 16, 3), np.uint8)
    oracle = [step_by_step(image.astype(float), 1, 1.3, 0.7, 15, 0) for image in images]
    np.testing.assert_allclose(augment.apply(images, policy, seed=0), oracle, atol=2e-3)
    batches = augment.epoch((images, np.arange(4)), policy, batch_size=4, shuffle=False)
    np.testing.assert_allclose(next(iter(batches))[0], oracle, atol=2e-3)


def test_contrast_zero_leaves_the_mean_colour():
    image = RNG.integers(0, 256, (1, 16, 16, 3), np.uint8)
    grey = augment.apply(image, Policy(16, (16, 16), flip=0.0, contrast=(0, 0), pca=0.0), seed=0)
    np.testing.assert_allclose(grey, np.broadcast_to(image.mean((1, 2)), (1, 16, 16, 3)), atol=1e-3)


def test_results_stay_within_0_and_255():
    images = RNG.integers(0, 256, (8, 16, 16, 3), np.uint8)
    wild = Policy(16, (16, 16), brightness=(0, 4), contrast=(0, 4), saturation=(0, 4), hue=(-180, 180), pca=2.0)
    out = augment.apply(images, wild, seed=3).numpy()
    assert out.min() >= 0 and out.max() <= 255 and np.isfinite(out).all()


@pytest.mark.parametrize("streamed", [False, True])
def test_pca_agrees_with_eigh_of_all_pixels(streamed):
    mixing = RNG.normal(size=(3, 3))
    images = np.clip(128 + 30 * RNG.normal(size=(7, 12, 9, 3)) @ mixing, 0, 255).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(7))) if streamed else (images, np.arange(7))
    pca = augment.fit_pca(dataset)
    pixels = images.reshape(-1, 3) / 255
    eigenvalues, eigenvectors = np.linalg.eigh(np.cov(pixels.T, bias=True))
    np.testing.assert_allclose(pca.mean, pixels.mean(0), rtol=1e-10)
    np.testing.assert_allclose(pca.eigenvalues, eigenvalues[::-1], rtol=1e-8)
    np.testing.assert_allclose(np.abs(np.sum(pca.eigenvectors * eigenvectors[:, ::-1], 0)), 1, rtol=1e-8)


def test_pca_reads_every_pixel_of_encoded_images_of_different_sizes():
    images = [RNG.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((3, 5), (1, 1), (9, 2))]
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(augment.fit_pca((encoded, [0, 1, 2])).mean, pixels.mean(0), rtol=1e-10)


def test_pca_of_nothing_is_an_error():
    nothing = tf.data.Dataset.from_tensor_slices((np.zeros((1, 2, 2, 3), np.uint8), [0])).skip(1)
    with pytest.raises(ValueError, match="no pixels"):
        augment.fit_pca(nothing)


def test_drawn_offsets_have_the_mean_and_covariance_of_the_theory():
    pca = PCA(np.zeros(3), np.array([0.3, 0.05, 0.01]), np.linalg.qr(RNG.normal(size=(3, 3)))[0])
    policy = Policy(pca=0.1)
    count = 20_000
    matrix = color.draw_matrix(policy, uniforms(0, 0, tf.range(count)), tf.zeros((count, 3)), pca).numpy()
    np.testing.assert_allclose(matrix[:, :, :3], np.broadcast_to(np.eye(3), (count, 3, 3)), atol=1e-5)
    offsets = matrix[:, :, 3] / 255
    scaled = offsets @ pca.eigenvectors / pca.eigenvalues  # α again
    assert min(stats.kstest(scaled[:, i] / 0.1, "norm").pvalue for i in range(3)) > 1e-3
    theory = 0.01 * pca.eigenvectors @ np.diag(pca.eigenvalues**2) @ pca.eigenvectors.T
    np.testing.assert_allclose(np.cov(offsets.T), theory, atol=0.05 * theory.max())
    np.testing.assert_allclose(offsets.mean(0), 0, atol=4 * np.sqrt(theory.max() / count))


def test_imagenets_components_are_orthonormal_and_descending():
    vectors = IMAGENET_PCA.eigenvectors
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)
    assert (np.diff(IMAGENET_PCA.eigenvalues) < 0).all()
