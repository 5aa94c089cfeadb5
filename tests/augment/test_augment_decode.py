"""Files as they come: any format, depth, size and orientation gives the right picture, or an error naming the file."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import augment
from augment import Policy
from augment.decode import exif_orientation

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).resize((96, 72), Image.BICUBIC))


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def oriented(number, subsampling=2):
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    exif[0x0112] = number
    return encode(Image.fromarray(SMOOTH), "JPEG", quality=95, subsampling=subsampling, exif=exif)


def upright(content):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))


def batch_of(contents, policy, **options):
    batches = augment.epoch((list(contents), np.arange(len(contents))), policy, batch_size=len(contents), **options)
    return next(iter(batches))[0].numpy()


def batch_of_pixels(images, policy, **options):
    batches = augment.epoch((np.stack(images), np.arange(len(images))), policy, batch_size=len(images), **options)
    return next(iter(batches))[0].numpy()


PICTURE = Image.fromarray(SMOOTH)
FORMATS = {
    "png": encode(PICTURE, "PNG"),
    "bmp": encode(PICTURE, "BMP"),
    "webp": encode(PICTURE, "WEBP", lossless=True),
    "grey png": encode(PICTURE.convert("L"), "PNG"),
    "grey jpeg": encode(PICTURE.convert("L"), "JPEG", quality=95),
    "palette png": encode(PICTURE.quantize(64), "PNG"),
    "jpeg": encode(PICTURE, "JPEG", quality=95),
    "progressive jpeg": encode(PICTURE, "JPEG", quality=95, progressive=True),
    "gif": encode(PICTURE.quantize(64), "GIF"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_agree_with_pillow(name):
    reference = np.asarray(Image.open(io.BytesIO(FORMATS[name])).convert("RGB")).astype(float)
    assert np.abs(augment.decode(FORMATS[name]).numpy() - reference).max() <= 2
    cropped = augment.centre_crop(FORMATS[name], Policy.none(32, short_side=72))
    assert np.abs(cropped - reference[20:52, 32:64]).max() <= 2


def test_every_format_in_one_batch():
    together = batch_of(FORMATS.values(), Policy.none(32), shuffle=False)
    for content, image in zip(FORMATS.values(), together, strict=True):
        np.testing.assert_allclose(image, augment.centre_crop(content, Policy.none(32)), atol=0.01)


def test_cmyk_jpeg():
    content = encode(PICTURE.convert("CMYK"), "JPEG", quality=95)
    reference = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)
    assert np.abs(augment.decode(content).numpy() - reference).mean() < 3
    cropped = augment.centre_crop(content, Policy.none(32, short_side=72))
    assert np.abs(cropped - reference[20:52, 32:64]).mean() < 3


def test_transparent_pixels_are_white():
    rgba = np.dstack([SMOOTH, np.full(SMOOTH.shape[:2], 255, np.uint8)])
    rgba[:30, :, 3] = 0
    rgba[30:40, :, 3] = 128
    got = augment.decode(encode(Image.fromarray(rgba), "PNG")).numpy().astype(float)
    assert (got[:30] == 255).all() and (got[40:] == SMOOTH[40:]).all()
    np.testing.assert_allclose(got[30:40], SMOOTH[30:40] * (128 / 255) + 255 * (127 / 255), atol=1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_png(channels):
    deep = RNG.integers(0, 65536, (9, 7, channels), np.uint16)
    deep[..., 3:] = 65535
    got = augment.decode(tf.io.encode_png(deep)).numpy()
    np.testing.assert_allclose(got, np.broadcast_to(deep[..., :3] / 257, (9, 7, 3)), atol=0.51)


@pytest.mark.parametrize("number", range(1, 9))
def test_orientation_is_honoured(number):
    content = oriented(number)
    assert int(exif_orientation(content)) == number
    assert np.abs(augment.decode(content).numpy() - upright(content).astype(float)).max() <= 2


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_orientation_of_other_formats_is_honoured(format, number):
    exif = Image.Exif()
    exif[0x0112] = number
    content = encode(PICTURE, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    np.testing.assert_array_equal(augment.decode(content), upright(content))
    policy = Policy.none(32, short_side=72)
    np.testing.assert_array_equal(augment.centre_crop(content, policy), augment.centre_crop(upright(content), policy))


def test_orientation_after_other_blocks_and_words():
    content = oriented(6)
    photoshop = b"\xff\xed" + (6002).to_bytes(2, "big") + b"p" * 6000
    comment = b"\xff\xfe" + (22).to_bytes(2, "big") + b"Exif\0\0 is the header"[:20]
    for block in (photoshop, comment, photoshop + comment):
        assert int(exif_orientation(content[:2] + block + content[2:])) == 6


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_orientation_in_both_byte_orders(byte_order):
    exif = Image.Exif()
    exif.endian = "<" if byte_order == "little" else ">"
    exif[0x0112] = 6
    assert int(exif_orientation(encode(PICTURE, "JPEG", exif=exif))) == 6


def test_no_or_senseless_orientation_is_one():
    exif = Image.Exif()
    exif[0x0112] = 77
    contents = [FORMATS["jpeg"], encode(PICTURE, "JPEG", exif=exif), FORMATS["jpeg"][:3], oriented(6)[:40]]
    assert [int(exif_orientation(content)) for content in contents] == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        Policy(32, short_side=(60, 72), pca=0.0),
        Policy(32, short_side=None, area=(0.2, 0.5), pca=0.0),
        Policy(32, short_side=(60, 72), rotate=30, lens=0.1, fill=(0, 0, 0), pca=0.0),
    ],
)
def test_decoding_only_the_crop_gives_the_pixels_of_the_decoded(policy):
    contents = [oriented(number) for number in range(1, 9)]
    decoded = tf.data.Dataset.from_tensor_slices((contents, np.arange(8))).map(lambda c, i: (augment.decode(c), i))
    wanted = next(iter(augment.epoch(decoded, policy, batch_size=8, seed=1, shuffle=False)))[0]
    np.testing.assert_allclose(batch_of(contents, policy, seed=1, shuffle=False), wanted, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("number", range(1, 9))
def test_decoding_at_a_reduced_scale_gives_the_means_of_blocks(number, scale):
    """As the discrete cosine transform at 1 / scale does, but for rounding in its colour space."""
    y, x = np.meshgrid(np.arange(64 * scale), np.arange(96 * scale), indexing="ij")
    wave = np.stack([np.sin(y / (5 * scale)), np.cos(x / (7 * scale)), np.sin((x + 2 * y) / (9 * scale))], -1)
    exif = Image.Exif()
    exif[0x0112] = number
    picture = Image.fromarray((128 + 100 * wave).astype(np.uint8))
    content = encode(picture, "JPEG", quality=98, subsampling=0, exif=exif)
    whole = upright(content).astype(float)
    policy = Policy(32, short_side=(64, 64), pca=0.0)
    got = batch_of([content] * 4, policy, seed=3, shuffle=False)
    means = whole.reshape(whole.shape[0] // scale, scale, whole.shape[1] // scale, scale, 3).mean((1, 3))
    wanted = batch_of_pixels([means.astype(np.float32)] * 4, policy, seed=3, shuffle=False)
    assert np.abs(got - wanted).max() < 3


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (5000, 5000), (3, 700)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_extreme_sizes(width, height, format):
    content = encode(Image.new("RGB", (width, height), (200, 100, 50)), format)
    for policy in (
        Policy.none(16),
        Policy(16, (18, 30), pca=0.0),
        Policy(16, None, area=(0.08, 1.0), rotate=40, pca=0.0),
    ):
        got = augment.centre_crop(content, policy).numpy()
        assert np.abs(got - np.array([200, 100, 50])).max() <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (3, 700)])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_extreme_sizes_drawn_at_random_cached_and_cropped(width, height, format):
    """A ramp along each side: what is shown must be between its ends and vary as little."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([255 * y / max(height - 1, 1), 255 * x / max(width - 1, 1), y * 0 + 50], -1)
    content = encode(
        Image.fromarray(ramp.astype(np.uint8)),
        format,
        **({"quality": 95, "subsampling": 0} if format == "JPEG" else {}),
    )
    contents = ([content] * 8, np.arange(8))
    policy = Policy(16, (18, 30), rotate=20, pca=0.0)
    wanted = next(iter(augment.epoch(contents, policy, batch_size=8, shuffle=False)))[0].numpy()
    got = next(iter(augment.pipeline(contents, policy, batch_size=8, shuffle=False, cache="decoded")))[0].numpy()
    np.testing.assert_allclose(got, wanted, atol=2)
    assert np.abs(wanted[..., 2] - 50).max() <= 6
    if height > 1:
        assert len(np.unique(wanted[..., 0].mean((1, 2)).round())) > 4, "other draws, other places"
    crops = augment.multicrop((16, 24), 10, 16)(content).numpy()
    assert np.abs(crops[..., 2] - 50).max() <= 6
    if height > 16:
        assert crops[1, ..., 0].mean() < 20 and crops[3, ..., 0].mean() > 235  # the top and the bottom


@pytest.mark.parametrize("shrink", [2, 4, 8, 16])
def test_large_photos_shrink_without_a_shift(shrink):
    y, x = np.meshgrid(np.arange(32 * shrink), np.arange(32 * shrink), indexing="ij")
    picture = np.stack([y, x, x * 0], -1) * (255 / (32 * shrink))
    content = encode(Image.fromarray(picture.astype(np.uint8)), "JPEG", quality=98, subsampling=0)
    got = augment.centre_crop(content, Policy.none(32)).numpy()
    ideal = picture.astype(np.uint8).reshape(32, shrink, 32, shrink, 3).mean((1, 3))
    inside = (got - ideal)[1:-1, 1:-1, :2]
    assert np.abs(inside.mean((0, 1))).max() < 0.4  # a shift of one shrunk pixel would be 8
    assert np.abs(got - ideal).max() <= 2.5


BAD = {
    "truncated jpeg": FORMATS["jpeg"][: len(FORMATS["jpeg"]) // 2],
    "truncated png": FORMATS["png"][:100],
    "jpeg header only": FORMATS["jpeg"][:20],
    "text": b"hello, this is no image",
    "nothing": b"",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "where"), zip(BAD, (0, 4, 2, 4, 1), strict=True))
def test_a_bad_file_is_named(name, where):
    contents = [FORMATS["jpeg"]] * 5
    contents[where] = BAD[name]
    table = tf.constant(contents)

    def file_name(index):
        return tf.strings.format("photos/{}.jpg", index)

    source = augment.Source(5, lambda index: (tf.gather(table, index), index), file_name)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"photos/{where}.jpg"):
        list(augment.epoch(source, Policy.none(8), batch_size=2))


@pytest.mark.slow
def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "here.jpg").write_bytes(FORMATS["jpeg"])
    paths = tf.constant([str(tmp_path / name) for name in ("here.jpg", "gone.jpg")])
    source = augment.Source(2, lambda i: (tf.io.read_file(tf.gather(paths, i)), i), lambda i: tf.gather(paths, i))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"gone\.jpg"):
        list(augment.epoch(source, Policy.none(8), batch_size=2))


@pytest.mark.slow
def test_a_bad_element_of_a_stream_is_counted():
    contents = [FORMATS["jpeg"], FORMATS["png"], BAD["text"], FORMATS["gif"]]
    stream = tf.data.Dataset.from_tensor_slices((contents, np.arange(4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="example 2"):
        list(augment.epoch(stream, Policy.none(8), batch_size=2, shuffle=False))
    with pytest.raises(tf.errors.InvalidArgumentError, match="example 2"):
        augment.fit_pca(stream)
