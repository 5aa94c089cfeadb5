"""Mixing: labels are exactly what is in the picture."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import augment
from augment import Policy, PolicyError
from augment.draws import uniforms
from augment.mix import beta_quantile, erase, mix

COUNT, SIZE = 64, 20
CLASSES = tf.eye(COUNT)  # every image is its own class
FLAT = tf.broadcast_to(tf.range(COUNT, dtype=tf.float32)[:, None, None, None], (COUNT, SIZE, SIZE, 3))


def both_ways(function, *tensors):
    """Results eagerly and inside tf.data."""
    yield function(*tensors)
    yield tf.data.Dataset.from_tensors(tensors).map(function).get_single_element()


def mixed(policy, epoch=0):
    uniform = uniforms(1, epoch, tf.range(COUNT))
    yield from both_ways(lambda images, labels: mix(images, labels, policy, uniform), FLAT, CLASSES)


def test_cutmix_labels_are_the_pasted_area():
    for epoch in range(5):
        for images, labels in mixed(Policy(SIZE, (SIZE, SIZE), cutmix=1.0), epoch):
            for i in range(COUNT):
                shown = np.bincount(images[i, :, :, 0].numpy().astype(int).ravel(), minlength=COUNT) / SIZE**2
                np.testing.assert_allclose(labels[i], shown, atol=1e-6)


def test_cutmix_pastes_one_rectangle():
    images, _ = next(mixed(Policy(SIZE, (SIZE, SIZE), cutmix=1.0)))
    for i in range(COUNT):
        foreign = images[i, :, :, 0].numpy() != i
        np.testing.assert_array_equal(foreign, np.outer(foreign.any(1), foreign.any(0)))
        for edge in (foreign.any(1), foreign.any(0)):
            assert np.abs(np.diff(np.r_[0, edge, 0])).sum() in (0, 2)


def test_mixup_labels_weigh_as_the_pixels_do():
    for images, labels in mixed(Policy(SIZE, (SIZE, SIZE), mixup=0.4)):
        np.testing.assert_allclose(labels @ tf.range(COUNT, dtype=tf.float32)[:, None], images[:, 0, :1, 0], atol=1e-3)
        np.testing.assert_allclose(tf.reduce_sum(labels, 1), 1, atol=1e-6)
        assert np.ptp(images, axis=(1, 2, 3)).max() < 1e-3


def test_both_share_the_images_evenly():
    policy = Policy(SIZE, (SIZE, SIZE), mixup=1.0, cutmix=1.0)
    cut = [
        np.isin(images, range(COUNT)).all((1, 2, 3)).mean() for e in range(10) for images, _ in [next(mixed(policy, e))]
    ]
    assert 0.4 < np.mean(cut) < 0.6


@pytest.mark.parametrize("a", [0.2, 1.0, 3.0])
def test_shares_are_beta_distributed(a):
    probability = (np.arange(500) + 0.5) / 500
    quantiles = beta_quantile(tf.constant(a), tf.constant(probability, tf.float32))
    np.testing.assert_allclose(quantiles, stats.beta.ppf(probability, a, a), atol=2e-5)


def test_erasing_takes_a_box_with_the_stated_probability():
    images = tf.fill((400, SIZE, SIZE, 3), -1.0)
    uniform = uniforms(0, 0, tf.range(400))
    policy = Policy(SIZE, (SIZE, SIZE), erase=0.3, fill=(1, 2, 3))
    for erased in both_ways(lambda x: erase(x, policy, uniform), images):
        boxes = erased.numpy()[..., 0] == 1
        share = boxes.mean((1, 2))
        assert abs((share > 0).mean() - 0.3) < 0.08
        assert share.max() <= 0.34 and share[share > 0].min() >= 0.005
        assert all((box == np.outer(box.any(1), box.any(0))).all() for box in boxes)
        np.testing.assert_array_equal(erased[boxes], np.broadcast_to([1, 2, 3], (boxes.sum(), 3)))


def test_a_pipeline_mixes_integer_and_one_hot_labels_alike():
    images, labels = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3), np.uint8), np.arange(6) % 3
    policy = Policy(8, (8, 8), cutmix=1.0, mixup=1.0)
    soft = next(iter(augment.pipeline((images, labels), policy, batch_size=6, classes=3)))
    rows = next(iter(augment.pipeline((images, np.eye(3, dtype=np.float32)[labels]), policy, batch_size=6)))
    np.testing.assert_array_equal(soft[1], rows[1])
    np.testing.assert_array_equal(soft[0], rows[0])
    assert soft[1].shape == (6, 3) and soft[1].dtype == tf.float32


@pytest.mark.parametrize("labels", [[0, 1, 2, 5], [0, -1, 2, 1]])
def test_labels_that_are_no_class_are_refused(labels):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    batches = augment.pipeline((images, labels), Policy(8, (8, 8), mixup=0.2), batch_size=4, classes=3, shuffle=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)0..2 .classes = 3.*(5|-1)"):
        list(batches)
    with pytest.raises(PolicyError, match="rows have 4 numbers; expected classes = 3"):
        augment.pipeline((images, np.eye(4)), Policy(8, (8, 8), mixup=0.2), batch_size=4, classes=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows", [np.arange(4)[:, None], np.eye(4, dtype=np.uint8), np.eye(4, dtype=bool), np.arange(4)]
)
def test_common_forms_of_labels_mix_alike(rows):
    images, policy = np.zeros((4, 8, 8, 3), np.uint8), Policy(8, (8, 8), mixup=1.0)
    got, wanted = (
        next(iter(augment.pipeline((images, r), policy, batch_size=4, classes=4)))[1] for r in (rows, np.eye(4))
    )
    np.testing.assert_array_equal(got, wanted)


def test_mixing_needs_to_know_the_classes():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(PolicyError, match="classes="):
        augment.pipeline((images, [0, 1]), Policy(8, (8, 8), mixup=0.2), batch_size=2)
    with pytest.raises(PolicyError, match="labels"):
        augment.apply(images, Policy(8, (8, 8), cutmix=0.2), seed=0)
