"""Formats as Pillow writes them, against Pillow's own decoding."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import augment

SQUARES = np.zeros((16, 24, 3), np.uint8)
SQUARES[:8], SQUARES[8:] = (220, 30, 30), (10, 200, 90)


def written(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_alpha():
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[:, :12] = 100
    return Image.fromarray(np.concatenate([SQUARES, alpha], -1))


def over_white(image):
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")))[..., :3]


IMAGES = {
    "png": (Image.fromarray(SQUARES), "PNG", {}),
    "palette png": (Image.fromarray(SQUARES).quantize(16), "PNG", {}),
    "palette png with alpha": (with_alpha().quantize(16), "PNG", {}),
    "one-bit png": (Image.fromarray(SQUARES).convert("L").point(lambda v: 255 * (v > 100)).convert("1"), "PNG", {}),
    "grey png": (Image.fromarray(SQUARES).convert("L"), "PNG", {}),
    "grey png with alpha": (with_alpha().convert("LA"), "PNG", {}),
    "png with alpha": (with_alpha(), "PNG", {}),
    "bmp": (Image.fromarray(SQUARES), "BMP", {}),
    "palette bmp": (Image.fromarray(SQUARES).quantize(16), "BMP", {}),
    "grey bmp": (Image.fromarray(SQUARES).convert("L"), "BMP", {}),
    "gif": (Image.fromarray(SQUARES).quantize(16), "GIF", {}),
    "webp": (Image.fromarray(SQUARES), "WEBP", {"lossless": True}),
    "webp with alpha": (with_alpha(), "WEBP", {"lossless": True, "exact": True}),
}


@pytest.mark.parametrize("name", IMAGES)
def test_agrees_with_pillow(name):
    image, kind, options = IMAGES[name]
    decoded = augment.decode(written(image, kind, **options)).numpy()
    np.testing.assert_allclose(decoded.astype(int), over_white(image), atol=1)


def test_webp_of_any_length():
    """The length in the header may hold any byte."""
    random = np.random.default_rng(0)
    for side in range(8, 24):
        image = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        assert augment.decode(written(image, "WEBP", lossless=True)).shape == (side, side, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_animated_webp_is_refused(mode):
    frames = [Image.fromarray(SQUARES).convert(mode), Image.fromarray(255 - SQUARES).convert(mode)]
    content = written(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="animated WebP"):
        augment.decode(content)


def test_pixels_with_alpha_are_over_white_too():
    rgba = np.asarray(with_alpha())
    policy = augment.Policy.none(16)
    from_file = augment.centre_crop(written(with_alpha(), "PNG"), policy)
    np.testing.assert_allclose(augment.centre_crop(rgba, policy), from_file, atol=0.6)
    np.testing.assert_allclose(augment.centre_crop(rgba.astype(np.float32), policy), from_file, atol=0.6)
