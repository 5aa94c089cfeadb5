"""Geometry: one matrix, one resample, no half-pixel shift.

The test image holds its own coordinates: red is y and green is x of every pixel's centre. Bilinear sampling is exact on
such a ramp, so an output pixel's colour says which point of the image was sampled.
"""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

import augment
from augment import Policy, geometry
from augment.draws import uniforms
from augment.lens import distort
from augment.region import capacity, fetch

SIZE = 32
HEIGHT, WIDTH = 150, 225  # below 255, for coordinates are pixel values; 64 / 150 of both are whole numbers


def ramp(height=HEIGHT, width=WIDTH):
    y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    return np.stack([y, x, np.zeros_like(y)], -1).astype(np.float32)


def fixed(**fields):
    """A policy that draws the same every time: the central patch, no shrinking beyond 2."""
    return Policy(**{"size": SIZE, "short_side": (64, 64), "flip": 0.0, "pca": 0.0, "centre": True, **fields})


def expected(*, rotate=0.0, stretch=0.0, shear=0.0, shift=(0.0, 0.0), flip=1, scale=HEIGHT / 64, lens=0.0, S=SIZE):
    """(y, x) that each output pixel shows, written out point by point in float64."""
    i, j = np.meshgrid(np.arange(S) + 0.5 - S / 2, np.arange(S) + 0.5 - S / 2, indexing="ij")
    factor = 1 + lens * (i**2 + j**2) / (S / 2) ** 2 / 2
    y, x = i * factor, j * factor * flip
    y, x = y - shift[0] * S, x - shift[1] * S
    a = np.deg2rad(rotate)
    y, x = y * np.cos(a) + x * np.sin(a), x * np.cos(a) - y * np.sin(a)
    y, x = y * 2 ** (stretch / 2), x * 2 ** (-stretch / 2)
    x = x + y * np.tan(np.deg2rad(shear))
    return HEIGHT / 2 + y * scale, WIDTH / 2 + x * scale


def modes(image, policy):
    """One image under a policy, three ways: eagerly by itself, in a batch, and in a pipeline."""
    yield augment.centre_crop(image, policy).numpy()
    yield augment.apply(image[None], policy, seed=0)[0].numpy()
    yield from (images[0].numpy() for images, _ in augment.epoch((image[None], [0]), policy, batch_size=1))


GEOMETRY = {
    "nothing": {},
    "rotate": {"rotate": 25},
    "stretch": {"stretch": 0.3},
    "shear": {"shear": 15},
    "shift": {"shift": (0.1, 0.1)},
    "flip": {"flip": -1},
    "barrel": {"lens": 0.1},
    "pincushion": {"lens": -0.1},
    "all": {"rotate": 12, "stretch": -0.2, "shear": 8, "shift": (-0.05, -0.05), "flip": -1, "lens": 0.05},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GEOMETRY)
def test_composed_then_sampled_agrees_with_the_analytic_transform(name):
    values = dict(GEOMETRY[name])
    fields = {key: (value, value) for key, value in values.items() if key in ("rotate", "stretch", "shear", "lens")}
    if "shift" in values:
        fields["translate"] = (values["shift"][0],) * 2
    if "flip" in values:
        fields["flip"] = 1.0
    y, x = expected(**values)
    assert min(y.min(), x.min(), HEIGHT - y.max(), WIDTH - x.max()) > 3, "the border would interfere"
    for got in modes(ramp(), fixed(**fields)):
        np.testing.assert_allclose(got[..., 0], y, atol=0.05)  # a triangle of a few pixels is not quite exact on ramps
        np.testing.assert_allclose(got[..., 1], x, atol=0.05)


@pytest.mark.parametrize("side", [40, 64, 100, 149, 300])
def test_no_half_pixel_shift_at_any_scale(side):
    policy = fixed(short_side=(side, side))
    width = 203
    resized_width = int(width * side / HEIGHT)
    rows = (round((side - SIZE) / 2) + np.arange(SIZE) + 0.5) * HEIGHT / side
    columns = (round((resized_width - SIZE) / 2) + np.arange(SIZE) + 0.5) * width / resized_width
    got = augment.centre_crop(ramp(HEIGHT, width), policy).numpy()
    np.testing.assert_allclose(got[:, :, 0], np.broadcast_to(rows[:, None], (SIZE, SIZE)), atol=0.05)
    np.testing.assert_allclose(got[:, :, 1], np.broadcast_to(columns, (SIZE, SIZE)), atol=0.05)


@settings(max_examples=30, deadline=None)
@given(st.floats(-170, 170), st.floats(-50, 50), st.floats(-2, 2), st.floats(-9, 9), st.floats(0.2, 5))
def test_matrices_agree_with_numpy_and_invert(degrees, lean, log2, shift, factor):
    for make, argument in ((geometry.rotation, degrees), (geometry.shear, lean), (geometry.stretch, log2)):
        identity = geometry.compose(make(argument), make(-argument))
        np.testing.assert_allclose(identity, np.eye(3), atol=1e-4)
        assert abs(np.linalg.det(make(argument).numpy()) - 1) < 1e-4
    chain = [geometry.translation(shift, 1.0), geometry.scaling(factor, -factor), geometry.rotation(degrees)]
    product = np.linalg.multi_dot([m.numpy().astype(float) for m in chain])
    np.testing.assert_allclose(geometry.compose(*chain), product, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_none_is_the_plain_centre_crop_bit_for_bit(dtype):
    image = np.random.default_rng(0).integers(0, 256, (70, 53, 3)).astype(dtype)
    for got in modes(image, Policy.none(SIZE, short_side=53)):
        np.testing.assert_array_equal(got, image[19:51, 10:42])


def zone_plate(height, width):
    """Rings that reach the highest frequency at the nearer edges: any fault of a filter shows."""
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2]).reshape(2, 1, 1) + 0.5
    rings = 127.5 + 127.5 * np.cos(np.pi * (x**2 + y**2) / max(height, width))
    return np.repeat(np.round(rings)[..., None], 3, -1).astype(np.uint8)


def pillow(image, size, box=None):
    return np.asarray(Image.fromarray(image).resize((size, size), Image.BILINEAR, box), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("side", [96, 120, 191, 192, 193, 240, 288, 383, 384, 385, 768])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shrinking_is_pillows_at_every_scale(side, dtype):
    image = zone_plate(side, side)
    for got in modes(image.astype(dtype), Policy.none(96)):
        assert np.abs(got - pillow(image, 96)).max() < 1.6  # Pillow rounds twice, and bytes are rounded once here


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0005, 1.998, 2, 2.0005, 2.002, 3.998, 4.002])
def test_shrinking_is_continuous_in_the_scale(scale):
    image = zone_plate(250, 250)
    area = (60 * scale / 250) ** 2
    policy = Policy(60, None, area=(area, area), aspect=(1, 1), flip=0, pca=0, centre=True)
    begin, end = 125 - 30 * scale, 125 + 30 * scale
    for got in modes(image, policy):
        wanted = pillow(image, 60, (begin, begin, end, end))
        assert np.abs(got - wanted)[2:-2, 2:-2].max() < 2.5  # Pillow does not see beyond its box, and rounds the box


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(150, 450), (450, 150), (200, 260)])
def test_both_axes_are_pillows_where_only_one_shrinks_by_more_than_2(height, width):
    image = zone_plate(height, width)
    policy = Policy(96, None, area=(1, 1), aspect=(width / height,) * 2, flip=1.0, pca=0.0, centre=True)
    for got in modes(image, policy):
        assert np.abs(got[:, ::-1] - pillow(image, 96)).max() < 1.6


@pytest.mark.parametrize("side", [192, 300, 384, 767])
def test_jpegs_that_are_decoded_smaller_stay_close_to_pillow(side):
    file = io.BytesIO()
    Image.fromarray(zone_plate(side, side)).save(file, "JPEG", quality=98, subsampling=0)
    whole = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    got = augment.centre_crop(file.getvalue(), Policy.none(96)).numpy()
    assert np.sqrt(np.square(got - pillow(whole, 96)).mean()) < 5  # 23 where nothing is filtered after decoding


@pytest.mark.slow
@pytest.mark.parametrize("fill", [None, (10.5, 200, 30)])
@pytest.mark.parametrize("side", [300, 192, 110])
def test_borders_are_the_same_however_the_image_shrinks(fill, side):
    """Half an output beyond the corner: a padded image resized by Pillow."""
    image, pad = zone_plate(side, side), side // 2
    padded = np.pad(image, ((pad, 0), (pad, 0), (0, 0)), "symmetric")
    if fill:
        padded[:pad] = padded[:, :pad] = np.round(fill)
    policy = Policy(96, (96, 96), flip=0, pca=0, centre=True, translate=(0.5, 0.5), fill=fill)
    shown = (0, 0, side, side) if side % 2 == 0 else (0.5, 0.5, side + 0.5, side + 0.5)
    for got in modes(image, policy):
        inside = np.abs(got - pillow(padded, 96, shown))[:-2, :-2]  # Pillow does not see beyond the box
        assert inside.max() < 2


def test_two_mirrorings_are_the_identity():
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    mirror = fixed(short_side=(SIZE, SIZE), flip=1.0)
    once = augment.apply(images, mirror, seed=0)
    np.testing.assert_array_equal(once, images[:, :, ::-1])
    np.testing.assert_array_equal(augment.apply(once, mirror, seed=1), images)
    in_tf_data = (
        tf.data.Dataset.from_tensors(images).map(lambda x: augment.apply(x, mirror, seed=0)).get_single_element()
    )
    np.testing.assert_array_equal(in_tf_data, once)


def test_lens_zero_is_the_identity_and_its_centre_stays():
    centres = tf.range(SIZE, dtype=tf.float32) + 0.5
    in_tf_data = tf.data.Dataset.from_tensors(0.0).map(lambda k1: distort(centres[:, None], centres[None], k1, SIZE))
    for y, x in (distort(centres[:, None], centres[None], 0.0, SIZE), in_tf_data.get_single_element()):
        np.testing.assert_array_equal(y, np.broadcast_to(centres[:, None], (SIZE, SIZE)))
        np.testing.assert_array_equal(x, np.broadcast_to(centres, (SIZE, SIZE)))
    assert [float(v) for v in distort(SIZE / 2, SIZE / 2, 0.2, SIZE)] == [SIZE / 2, SIZE / 2]
    corner = distort(tf.constant(0.0), tf.constant(0.0), 0.25, SIZE)
    np.testing.assert_allclose(corner, SIZE / 2 * (1 - 1.25), rtol=1e-6)  # r = 1 in the corners


def test_reflected_border_shows_the_inside_again():
    image = ramp(64, 64)
    got = augment.centre_crop(image, fixed(short_side=(SIZE, SIZE), translate=(0.25, 0.25))).numpy()
    at = (np.arange(SIZE) + 0.5) * 2 - 16  # a quarter of the picture beyond the top and left border
    np.testing.assert_allclose(got[9:, 9:, 0], np.broadcast_to(at[9:, None], (23, 23)), atol=0.01)
    np.testing.assert_allclose(got[:7, :, 0], np.broadcast_to(-at[:7, None], (7, SIZE)), atol=0.01)


def test_filled_border_has_the_fills_colour():
    image = np.full((64, 64, 3), 200, np.uint8)
    policy = fixed(short_side=(SIZE, SIZE), translate=(0.25, 0.25), rotate=(0.001, 0.001), fill=(10, 20, 30))
    got = augment.centre_crop(image, policy).numpy()
    np.testing.assert_allclose(got[:7, :7], np.broadcast_to([10, 20, 30], (7, 7, 3)), atol=1e-3)
    np.testing.assert_allclose(got[9:, 9:], 200, atol=1e-3)


@pytest.mark.parametrize("fields", [{}, {"rotate": (0.01, 0.01)}], ids=["axis-aligned", "turned"])
@pytest.mark.parametrize("side", [220, 180, 150, 128, 110, 80, 64, 40])
def test_shrinking_antialiases(fields, side):
    """What is too fine for the output fades as in exact area averages; a plain bilinear resize keeps 60-90 of it."""
    policy = fixed(short_side=(side, side), **fields)
    corner = (side - SIZE) // 2
    for period in (2, 3):
        stripes = np.broadcast_to((np.arange(256) % period == 0)[None, :, None] * 255, (256, 256, 3)).astype(np.uint8)
        averages = tf.image.resize(stripes, (side, side), method="area")[corner:][:SIZE, corner : corner + SIZE].numpy()
        got = augment.centre_crop(stripes, policy).numpy()
        assert got.std() < averages.std() + 15
        assert abs(got.mean() - 255 / period) < 5
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert augment.centre_crop(noise, policy).numpy().std() < 1.15 * noise.std() * side / 256


@pytest.mark.parametrize("side", [256, 180])
def test_a_barrels_corners_are_antialiased(side):
    stripes = np.broadcast_to((np.arange(256) % 2 * 255)[None, :, None], (256, 256, 3)).astype(np.uint8)
    policy = fixed(size=64, short_side=(side, side), lens=(0.33, 0.33))
    corner = augment.centre_crop(stripes, policy).numpy()[:8, :8]  # where twice as much is seen as in the middle
    assert corner.std() < 20


def test_resampling_is_close_to_tensorflows_antialiased_resize():
    rng = np.random.default_rng(0)
    image = tf.image.resize(rng.uniform(0, 255, (12, 15, 3)), (300, 375), "bicubic")  # smooth, as photos are
    image = tf.clip_by_value(image, 0, 255)
    for side in (40, 96, 150, 200, 420):
        width = int(375 * side / 300)
        reference = tf.image.resize(image, (side, width), antialias=True)
        top, left = round((side - SIZE) / 2), round((width - SIZE) / 2)
        got = augment.centre_crop(image, fixed(short_side=(side, side)))
        assert np.abs(got - reference[top : top + SIZE, left : left + SIZE]).max() < 0.1


def boxes(policy, count=4000, height=300, width=400):
    height, width = float(height), float(width)
    examples = tf.data.Dataset.range(count).map(lambda i: geometry.crop_box(policy, uniforms(0, 0, i), height, width))
    return examples.batch(count).get_single_element().numpy()


def test_crops_are_uniform_over_scale_and_place():
    top, left, height, width = boxes(Policy()).T
    np.testing.assert_allclose(height, width)
    short = 224 * 300 / height
    assert stats.kstest((short - 256) / (480 - 256), "uniform").pvalue > 1e-3
    assert stats.kstest(top / (300 - height), "uniform").pvalue > 1e-3
    assert stats.kstest(left / (400 - width), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(top / (300 - height), left / (400 - width))[0, 1]) < 0.06


def reference_crops(area, aspect, height, width, count):
    """Boxes of torchvision's RandomResizedCrop, written after its documentation."""
    rng, rows = np.random.default_rng(1), []
    for _ in range(count):
        for _ in range(10):
            share, ratio = rng.uniform(*area) * height * width, np.exp(rng.uniform(*np.log(aspect)))
            wide, high = round(np.sqrt(share * ratio)), round(np.sqrt(share / ratio))
            if 0 < wide <= width and 0 < high <= height:
                rows.append((rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1), high, wide))
                break
        else:
            wide, high = min(width, round(height * aspect[1])), min(height, round(width / aspect[0]))
            rows.append(((height - high) // 2, (width - wide) // 2, high, wide))
    return np.array(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(375, 500), (200, 800), (640, 480)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.35, 1.0), (0.25, 0.5)])
def test_area_crops_have_the_distribution_of_random_resized_crop(height, width, area):
    top, left, high, wide = boxes(Policy(short_side=None, area=area), 10_000, height, width).T
    wanted = reference_crops(area, (3 / 4, 4 / 3), height, width, 10_000).T
    rng = np.random.default_rng(2)
    both = (
        [top, left, high, wide, 200 * high * wide / height / width, 200 * wide / high],
        [*wanted, 200 * wanted[2] * wanted[3] / height / width, 200 * wanted[3] / wanted[2]],
    )
    for got, reference in zip(*both, strict=True):
        blurred = [values + rng.uniform(-20, 20, 10_000) for values in (got, reference)]  # ours are no whole pixels
        assert stats.ks_2samp(*blurred).statistic < 0.0275  # p = 0.001
    assert (wide / high).max() < 4 / 3 * 1.01 and (wide / high).min() > 3 / 4 * 0.99
    assert min(top.min(), left.min(), (height - top - high).min(), (width - left - wide).min()) > -1e-3


def test_area_crops_depend_on_the_example_alone():
    policy = Policy(short_side=None, area=(0.08, 1.0))
    together = geometry.crop_box(policy, uniforms(3, 1, tf.range(50)), tf.fill(50, 375.0), tf.fill(50, 500.0))
    for i in (0, 17, 49):
        np.testing.assert_array_equal(geometry.crop_box(policy, uniforms(3, 1, i), 375.0, 500.0), together[i])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (3, 2)])
def test_area_crops_of_tiny_images_lie_inside(height, width):
    top, left, high, wide = boxes(Policy(short_side=None, area=(0.01, 1.0)), 500, height, width).T
    assert min(high.min(), wide.min()) > 0 and (top + high).max() <= height + 1e-4
    assert min(top.min(), left.min()) >= 0 and (left + wide).max() <= width + 1e-4


@pytest.mark.parametrize("scale", [24, 224, 256, 257, 640])
def test_resized_sides_and_centre_crops_are_torchvisions(scale):
    for height, width in [(375, 500), (500, 375), (333, 500), (3000, 4000), (97, 31), (480, 481), (640, 427)]:
        short, long = min(height, width), max(height, width)
        wanted = [scale, int(scale * long / short)]
        resized = geometry.resized_size(height, width, scale).numpy()
        assert resized.tolist() == (wanted if height <= width else wanted[::-1])
        corner = geometry.centre_corner(resized, 24).numpy()
        assert corner.tolist() == [round((side - 24) / 2.0) for side in resized.tolist()]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(0, 10**6),
    st.sampled_from([Policy.strong(8), Policy.light(8), Policy(8, (8, 20)), Policy.none(8)]),
)
def test_a_region_fits_its_capacity_and_lies_in_the_image(height, width, index, policy):
    region = fetch(np.zeros((height, width, 3), np.uint8), policy, uniforms(0, 0, index))
    (rows, columns), (top, left), whole = region.frame.numpy()
    assert region.pixels.shape == (rows, 3 * columns)
    assert rows <= capacity(policy)[0] and 3 * columns <= capacity(policy)[1]
    assert min(top, left) >= 0 and top + rows <= whole[0] and left + columns <= whole[1]
