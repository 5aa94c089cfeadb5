"""Test crops: boxes that are fixed beforehand; and the preview."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import augment
from augment import Policy, PolicyError
from augment.multicrop import resized_window

ROOT = Path(__file__).resolve().parents[2]

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 56, 3), np.uint8)


def test_ten_crops_of_one_scale_are_slices_and_their_mirror_images():
    got = augment.multicrop((40,), 10, 24)(IMAGE).numpy()
    places = [(8, 16), (0, 0), (0, 32), (16, 0), (16, 32)]
    slices = [IMAGE[top : top + 24, left : left + 24] for top, left in places]
    np.testing.assert_array_equal(got, slices + [crop[:, ::-1] for crop in slices])


@pytest.mark.parametrize(("height", "width"), [(41, 55), (43, 57), (42, 83), (100, 67)])
def test_crops_lie_where_torchvisions_do(height, width):
    """Resize, then CenterCrop and the corners, in integers after torchvision's documentation."""
    image = RNG.integers(0, 256, (height, width, 3), np.uint8)
    for scale in (24, 33, 41):
        short, long = min(height, width), max(height, width)
        high, wide = (scale, int(scale * long / short)) if height <= width else (int(scale * long / short), scale)
        resized = tf.image.resize(image, (high, wide), antialias=True).numpy()
        places = [(round((high - 24) / 2.0), round((wide - 24) / 2.0))]
        places += [(0, 0), (0, wide - 24), (high - 24, 0), (high - 24, wide - 24)]
        wanted = [resized[top : top + 24, left : left + 24] for top, left in places]
        np.testing.assert_allclose(augment.multicrop((scale,), 5, 24)(image), wanted, atol=0.02)
        plain = augment.centre_crop(image.astype(np.float32), Policy.none(24, short_side=scale))
        np.testing.assert_allclose(plain, wanted[0], atol=0.02)


@pytest.mark.parametrize("crops", [1, 5, 10])
def test_number_and_order_of_crops(crops):
    one, all_scales = augment.multicrop((32,), crops, 24), augment.multicrop((24, 32, 64), crops, 24)
    assert len(all_scales) == 3 * crops and all_scales(IMAGE).shape == (3 * crops, 24, 24, 3)
    np.testing.assert_array_equal(all_scales(IMAGE)[crops : 2 * crops], one(IMAGE))
    np.testing.assert_allclose(one(IMAGE), augment.multicrop((32,), 10, 24)(IMAGE)[:crops], atol=0.01)


@pytest.mark.parametrize(("height", "width"), [(1, 300), (300, 1), (40, 700), (97, 31), (333, 500)])
def test_crops_are_slices_of_the_resized_image_however_elongated(height, width):
    image, rng = RNG.integers(0, 256, (height, width, 3), np.uint8), np.random.default_rng(0)
    for scale in (24, 40, 61):
        resized = augment.multicrop((scale,), 5, 24)._resized(height, width, scale).numpy()
        reference = tf.image.resize(image, resized, antialias=True).numpy()
        for _ in range(5):
            top, left = (int(rng.integers(0, side - 23)) for side in resized)
            got = resized_window(tf.constant(image), resized, (top, left), (24, 24))
            np.testing.assert_allclose(got, reference[top : top + 24, left : left + 24], atol=0.02)
        corner = augment.multicrop((scale,), 5, 24)(image)[4]
        np.testing.assert_allclose(corner, reference[-24:, -24:], atol=0.02)


@pytest.mark.slow
def test_elongated_images_need_little_memory():
    """Twenty times the pixels of these would be 11 GB."""
    code = (
        "import resource, numpy as np, augment;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024;"
        "image = np.zeros((1, 5000, 3), np.uint8); augment.multicrop((32,), 10, 32)(image); before = peak();"
        "augment.multicrop((224, 640), 10)(image); shape = augment.whole(image, 224, 16).shape;"
        "print(peak() - before, *shape)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    more, *shape = map(int, answer.split())
    assert more < 400 and shape == [224, 8 * 224, 3]


def test_the_middle_of_long_images_is_seen_whole():
    image = RNG.integers(0, 256, (8, 100, 3), np.uint8)
    np.testing.assert_allclose(augment.whole(image, 8), image[:, 18:82], atol=1e-3)
    np.testing.assert_array_equal(augment.whole(IMAGE, 40), IMAGE)


def test_boxes_of_photos_that_are_decoded_smaller_are_right_to_half_a_pixel():
    height, width = 601, 1003
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([(y + 0.5) / height, (x + 0.5) / width, y * 0], -1) * 255
    content = tf.io.encode_jpeg(np.round(ramp).astype(np.uint8), quality=98)
    grid = augment.multicrop((32, 64), 10, 32)
    assert grid.open(content).shape[0] < height / 2
    middle = grid(content).numpy()[:, 15:17, 15:17].mean((1, 2)) / 255
    top, left, high, wide = grid.boxes(height, width).numpy().T
    pixel = np.repeat([height / 32, height / 64], 10)
    assert (np.abs(middle[:, 0] * height - (top + high / 2)) < 0.6 * pixel).all()
    assert (np.abs(middle[:, 1] * width - (left + wide / 2)) < 0.6 * pixel).all()


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
