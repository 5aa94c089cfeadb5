"""What is refused by its header, and that it is never decoded."""

import struct

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import jpeg, png, png_bomb
from odd_images import encoded
from PIL import Image

import augment
from recipes.data.header_ops import header_size, refusal
from recipes.export.proof_images import made_images


def webp(tmp_path, lossless: bool, alpha: bool = False) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 211, 4 if alpha else 3), np.uint8))
    image.save(tmp_path / "a.webp", lossless=lossless)
    return (tmp_path / "a.webp").read_bytes()


def test_the_size_of_every_format_is_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 211, 3), np.uint8)
    bmp, gif = (encoded(Image.fromarray(pixels), kind) for kind in ("BMP", "GIF"))
    upside_down = bytearray(bmp)
    upside_down[22:26] = struct.pack("<i", -37)
    contents = [jpeg(pixels), png(pixels), bmp, bytes(upside_down), gif]
    contents += [webp(tmp_path, True), webp(tmp_path, False), webp(tmp_path, False, alpha=True)]
    for content in contents:
        assert header_size(tf.constant(content)).numpy().tolist() == [37, 211], content[:16]


def test_a_file_that_is_no_image_is_reported():
    for content in (b"", b"hello", b"\x00" * 100, b"GIF", b"<svg/>"):
        assert refusal(tf.constant(content), 10**6).numpy()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBPVP8X", b"RIFF1234WEBPVP8L", b""]),
    st.binary(max_size=60),
)
def test_no_header_but_that_of_a_jpeg_raises(magic, rest):
    refusal(tf.constant(magic + rest), 10**6)


def test_large_images_are_rejected():
    huge = png_bomb(3000, 2000)
    assert b"too large: 3000 \xc3\x97 2000" in refusal(tf.constant(huge), 5_999_999).numpy()
    assert not refusal(tf.constant(huge), 6_000_000).numpy()
    lying = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 2**32 - 1, 2**32 - 1)
    assert b"too large" in refusal(tf.constant(lying), 2**31 - 1).numpy()


def test_the_images_of_the_proof_are_what_they_are_called(tmp_path):
    """For Pillow and for `augment`."""
    for name, content in made_images(None):
        (tmp_path / "image").write_bytes(content)
        with Image.open(tmp_path / "image") as image:
            image.load()
            height, width = augment.decode(tf.constant(content)).shape[:2]
            turned = "orientation" in name and int(name[-1]) > 4
            assert image.size == ((height, width) if turned else (width, height))
            assert image.format == ("PNG" if "PNG" in name else name.split()[0])
            if "orientation" in name:
                assert image.getexif()[0x0112] == int(name[-1])
