"""Formats as Pillow writes them, against Pillow's own decoding."""

import io
from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from odd_images import bmp, chunk, gif
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


RANDOM = np.random.default_rng(1)
INDICES = RANDOM.integers(0, 128, (13, 11)).astype(np.uint8)
PALETTE = RANDOM.integers(0, 256, 384).astype(np.uint8).tobytes()
GREEN = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # masks of BGRA


def raw(*shape) -> bytes:
    return RANDOM.integers(0, 256, shape).astype(np.uint8).tobytes()


def with_key(image: Image.Image, key) -> bytes:
    return written(image, "PNG", transparency=key)


ODD = {
    "bmp of 1 bit": bmp(11, 5, 1, raw(5, 2), palette=raw(8)),
    "bmp of 4 bits": bmp(11, 5, 4, raw(5, 6), palette=raw(64)),
    "bmp of 8 bits, rows from the top": bmp(11, -5, 8, raw(5, 11), palette=raw(1024)),
    "bmp of 16 bits": bmp(11, 5, 16, raw(5, 22)),
    "bmp of 16 bits, masks": bmp(11, 5, 16, raw(5, 22), compression=3, masks=(0xF800, 0x7E0, 0x1F)),
    "bmp of 24 bits": bmp(11, 5, 24, raw(5, 33)),
    "bmp of 24 bits for OS/2": bmp(11, 5, 24, raw(5, 33), header=12),
    "bmp of 8 bits for OS/2": bmp(11, 5, 8, raw(5, 11), header=12, palette=raw(768)),
    "bmp of 32 bits": bmp(11, 5, 32, raw(5, 44)),
    "bmp of 32 bits, other masks": bmp(
        11, 5, 32, raw(5, 44), header=56, compression=3, masks=(0xFF000000, 0xFF0000, 0xFF00, 0)
    ),
    "bmp with alpha": bmp(11, 5, 32, raw(5, 44), header=108, compression=3, masks=GREEN),
    "bmp whose alpha is not declared": bmp(11, 5, 32, raw(5, 44), header=108, masks=GREEN),
    "bmp with a profile behind": bmp(11, 5, 24, raw(5, 33), header=124) + raw(3000),
    "bmp that passes over its palette": bmp(11, 5, 8, raw(5, 11), palette=raw(1024), offset=54),
    "gif": gif(INDICES, palette=PALETTE),
    "transparent gif": gif(INDICES // 40, palette=PALETTE, transparent=2),
    "interlaced gif": gif(INDICES, palette=PALETTE, interlaced=True),
    "gif with a local palette": gif(INDICES, palette=PALETTE, local=True),
    "gif without palette": gif(INDICES, palette=b"", local=False).replace(b"\xf6", b"\x76", 1),
    "gif on a larger canvas": gif(INDICES, canvas=(30, 20), at=(4, 3), palette=PALETTE),
    "transparent gif on a larger canvas": gif(INDICES, canvas=(30, 20), at=(4, 3), palette=PALETTE, transparent=7),
    "gif larger than its canvas": gif(INDICES, canvas=(6, 5), palette=PALETTE),
    "gif with a larger second frame": gif(
        INDICES, palette=PALETTE, more=b"\x2c" + bytes([0, 0, 0, 0, 99, 0, 99, 0, 0]) + b"\x02\x02\x44\x01\x00"
    ),
    "gif with a broken second frame": gif(INDICES, palette=PALETTE, more=b"\x2c\x00"),
    "png with a transparent colour": with_key(Image.fromarray(SQUARES), (220, 30, 30)),
    "grey png with a transparent colour": with_key(Image.fromarray(SQUARES[..., 0]), 220),
    "one-bit png with a transparent colour": with_key(Image.fromarray(SQUARES[..., 0] > 100), 255),
}


@pytest.mark.parametrize("name", ODD)
def test_variants_agree_with_pillow(name):
    expected = over_white(Image.open(io.BytesIO(ODD[name])))
    np.testing.assert_allclose(augment.decode(ODD[name]).numpy().astype(int), expected, atol=2)
    assert not augment.unsupported(ODD[name]).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_colour_of_16_bits(channels):
    """One colour that differs from the transparent one in the lower byte alone is opaque."""
    pixels = np.full((2, 3, channels), 0x1234, np.uint16)
    pixels[0], colour = 0x1235, (b"\x12\x34" if channels == 1 else b"\x12\x34" * 3)
    content = tf.io.encode_png(pixels).numpy()
    at = content.index(b"IDAT") - 4
    content = content[:at] + chunk(b"tRNS", colour) + content[at:]
    got = augment.decode(content).numpy()
    assert (got[0] == 0x12).all() and (got[1] == 255).all()


def test_bmp_of_any_masks():
    """As the masks say: 4 bits a channel, which Pillow refuses."""
    numbers = RANDOM.integers(0, 65536, (5, 11)).astype("<u2")
    masks = (0xF00, 0xF0, 0xF, 0xF000)
    content = bmp(11, -5, 16, numbers.tobytes(), header=56, compression=3, masks=masks)
    channels = np.stack([(numbers & mask) // (mask & -mask) * 17 for mask in masks], -1).astype(np.uint8)
    expected = over_white(Image.fromarray(channels))
    np.testing.assert_allclose(augment.decode(content).numpy().astype(int), expected, atol=1)


NOT_READ = {
    "animated WebP": written(
        Image.fromarray(SQUARES), "WEBP", save_all=True, append_images=[Image.fromarray(255 - SQUARES)]
    ),
    "compressed BMP": bmp(11, 5, 8, raw(5, 11), compression=1, palette=raw(1024)),
    "TIFF": written(Image.fromarray(SQUARES), "TIFF"),
    "AVIF": b"\x00\x00\x00\x20ftypavif" + bytes(20),
    "HEIC": b"\x00\x00\x00\x20ftypheic" + bytes(20),
    "JPEG 2000": written(Image.fromarray(SQUARES), "JPEG2000"),
    "lossless or hierarchical JPEG": written(Image.fromarray(SQUARES), "JPEG").replace(b"\xff\xc0", b"\xff\xc3"),
}


FOREIGN = {  # by their signatures
    "PPM, PGM or PBM": [written(Image.fromarray(SQUARES).convert(mode), "PPM") for mode in ("RGB", "L", "1")],
    "PCX": [written(Image.fromarray(SQUARES).convert(mode), "PCX") for mode in ("RGB", "L", "P", "1")],
    "TGA": [
        written(Image.fromarray(SQUARES).convert(mode), "TGA", compression=compression)
        for mode, compression in [*product(("RGB", "RGBA", "L", "LA", "P"), (None, "tga_rle")), ("1", None)]
    ],
    "icon": [written(Image.fromarray(SQUARES), "ICO"), b"\0\0\2\0\1\0" + bytes(20)],
    "QOI": [b"qoif\0\0\0\x18\0\0\0\x10\3\0" + bytes(30)],
    "DDS": [written(Image.fromarray(SQUARES), "DDS")],
    "SGI": [written(Image.fromarray(SQUARES), "SGI")],
    "XBM": [written(Image.fromarray(SQUARES).convert("1"), "XBM")],
    "OpenEXR": [b"v/1\1\2\0\0\0" + bytes(30)],
    "Radiance HDR": [b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", b"#?RGBE\n"],
    "DICOM": [bytes(128) + b"DICM" + bytes(30)],
    "JPEG XR": [b"II\xbc\1" + bytes(30)],
    "JPEG-LS": [b"\xff\xd8\xff\xf7\0\x0b\x08\0\x10\0\x10\1\1\x11\0\xff\xda" + bytes(30)],
    "SVG": [b"<svg width='9'/>", b"<?xml version='1.0'?>\n<!-- \xe9 -->\n<svg xmlns='x'>", b"\xef\xbb\xbf <svg\n>"],
}


@pytest.mark.parametrize(("name", "content"), [(name, each) for name in FOREIGN for each in FOREIGN[name]])
def test_formats_are_named_by_their_signatures(name, content):
    assert augment.unsupported(content).numpy().decode() == name
    if not content.startswith(b"\xff\xd8"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"format not supported: {name}"):
            augment.decode(content)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello", bytes(300), b"<html><svg>", b"P1ano", b'{"a": 1}', b"a,b\n1,2\n"]
)
def test_what_is_no_image_has_no_format(content):
    assert not augment.unsupported(content).numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG, GIF, BMP or WebP image"):
        augment.decode(content)


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
@pytest.mark.parametrize(("bits", "masks"), [
    (16, (0, 0, 0, 0)), (24, (0, 0, 0, 0)), (32, (0, 0, 0, 0)),
    (32, (0xFF0000, 0, 0xFF, 0)), (32, (0xFF0000, 0xFF00, 0xFF00, 0)), (32, (0xF0F000, 0xF00, 0xFF, 0)),
    (16, (0xFF0000, 0xFF00, 0xFF, 0)), (8, (0xE0, 0x1C, 0x3, 0)),
])  # fmt: skip
def test_bmp_of_masks_without_meaning_is_never_decoded(header, bits, masks):
    palette = raw(1024) if bits == 8 else b""
    content = bmp(11, 5, bits, raw(5, 11 * bits // 8), header=header, compression=3, masks=masks, palette=palette)
    assert augment.unsupported(content).numpy() == b"BMP of unusual bit masks"
    with pytest.raises(tf.errors.InvalidArgumentError, match="format not supported"):
        augment.decode(content)


def test_bmp_of_24_bits_without_padding_of_its_last_row_is_read():
    content = bmp(11, 5, 24, raw(5, 33))
    np.testing.assert_array_equal(augment.decode(content[:-3]), augment.decode(content))


@pytest.mark.parametrize(("content", "reason"), [
    (NOT_READ["TIFF"], "format not supported: TIFF"), (written(Image.fromarray(SQUARES), "PNG")[:60], "Invalid PNG"),
    (b"hello", "not a JPEG, PNG, GIF, BMP or WebP image"),
])  # fmt: skip
def test_a_preview_names_the_image_that_cannot_be_decoded(content, reason):
    dataset = tf.data.Dataset.from_tensor_slices(([written(Image.fromarray(SQUARES), "PNG"), content], [0, 1]))
    with pytest.raises(augment.PolicyError) as raised:
        augment.preview(dataset, augment.Policy.light(16))
    assert str(raised.value).startswith("cannot show ") and f"({reason}" in str(raised.value)
    assert "node" not in str(raised.value) and "Op:" not in str(raised.value) and "Summarized" not in str(raised.value)


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_supported_is_named_and_never_decoded(name):
    assert augment.unsupported(NOT_READ[name]).numpy().decode() == name
    with pytest.raises(tf.errors.InvalidArgumentError):
        augment.decode(NOT_READ[name])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_damaged_files_of_known_formats_have_no_such_name(kind):
    content = written(Image.fromarray(SQUARES), kind)
    assert not augment.unsupported(content[: len(content) // 2]).numpy()
    with pytest.raises(tf.errors.InvalidArgumentError):
        augment.decode(content[: len(content) // 2])
