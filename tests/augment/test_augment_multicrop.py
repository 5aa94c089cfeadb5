"""Test crops: boxes that are fixed beforehand; and the preview."""

import numpy as np
import pytest
import tensorflow as tf

import augment
from augment import Policy, PolicyError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 56, 3), np.uint8)


def test_ten_crops_of_one_scale_are_slices_and_their_mirror_images():
    got = augment.multicrop((40,), 10, 24)(IMAGE).numpy()
    places = [(8, 16), (0, 0), (0, 32), (16, 0), (16, 32)]
    slices = [IMAGE[top : top + 24, left : left + 24] for top, left in places]
    np.testing.assert_array_equal(got, slices + [crop[:, ::-1] for crop in slices])


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_number_and_order_of_crops(crops):
    one, all_scales = augment.multicrop((32,), crops, 24), augment.multicrop((24, 32, 64), crops, 24)
    assert len(all_scales) == 3 * crops and all_scales(IMAGE).shape == (3 * crops, 24, 24, 3)
    np.testing.assert_array_equal(all_scales(IMAGE)[crops : 2 * crops], one(IMAGE))
    np.testing.assert_array_equal(one(IMAGE), augment.multicrop((32,), 10, 24)(IMAGE)[:crops])


def test_boxes_say_where_the_crops_lie():
    grid = augment.multicrop((24, 48), 10, 24)
    y, x = np.meshgrid(np.arange(40) + 0.5, np.arange(56) + 0.5, indexing="ij")
    ramp = np.stack([y, x, y], -1).astype(np.float32)
    middle = grid(ramp).numpy()[:, 11:13, 11:13].mean((1, 2))  # the middle of a crop shows the middle of its box
    top, left, height, width = grid.boxes(40, 56).numpy().T
    np.testing.assert_allclose(middle[:, 0], top + height / 2, atol=0.05)
    np.testing.assert_allclose(middle[:, 1], left + width / 2, atol=0.05)
    assert (width < 0).tolist() == ([False] * 5 + [True] * 5) * 2


def test_the_centre_is_that_of_the_plain_centre_crop():
    crop = augment.multicrop((40,), 1, 24)(IMAGE)[0]
    np.testing.assert_array_equal(crop, augment.centre_crop(IMAGE, Policy.none(24, short_side=40)))


def test_in_tf_data_and_in_an_exported_graph(tmp_path):
    grid = augment.multicrop((32, 48), 10, 24)
    contents = [tf.io.encode_png(IMAGE).numpy(), tf.io.encode_jpeg(IMAGE).numpy()]
    eager = [grid(content) for content in contents]
    mapped = list(tf.data.Dataset.from_tensor_slices(contents).map(grid))
    np.testing.assert_allclose(mapped, eager, atol=1e-4)

    module = tf.Module()
    module.serve = tf.function(grid, input_signature=[tf.TensorSpec((), tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path)).serve
    np.testing.assert_allclose([served(content) for content in contents], eager, atol=1e-4)


def test_a_centre_crop_exports_too(tmp_path):
    module, policy = tf.Module(), Policy.none(24)
    module.serve = tf.function(lambda c: augment.centre_crop(c, policy), input_signature=[tf.TensorSpec((), tf.string)])
    tf.saved_model.save(module, str(tmp_path))
    content = tf.io.encode_jpeg(IMAGE)
    served = tf.saved_model.load(str(tmp_path)).serve(content)
    np.testing.assert_allclose(served, augment.centre_crop(content, policy), atol=1e-3)


@pytest.mark.parametrize("wrong", [{"crops": 3}, {"scales": (20,)}, {"scales": ()}])
def test_impossible_grids_are_refused(wrong):
    with pytest.raises(PolicyError, match=next(iter(wrong))):
        augment.multicrop(**{"scales": (32,), "crops": 10, "size": 24, **wrong})


def test_preview_shows_originals_and_eight_draws_with_their_parameters(tmp_path):
    figure = augment.preview((np.stack([IMAGE] * 3), [0, 1, 2]), Policy.strong(24), rows=2)
    assert len(figure.axes) == 2 * 9
    assert figure.axes[0].get_xlabel() == "56 × 40"
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), IMAGE)
    drawn = figure.axes[1:9]
    assert len({axes.get_xlabel() for axes in drawn}) == 8
    assert all("rotate" in axes.get_xlabel() and "area" in axes.get_xlabel() for axes in drawn)
    figure.savefig(tmp_path / "preview.png")
    assert (tmp_path / "preview.png").stat().st_size > 10_000
