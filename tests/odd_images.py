"""Encoded images that are malformed or unusual, each made here, with what the audit must say of it."""

import io
import struct
import zlib

import numpy as np
from makers import picture
from PIL import Image

SIDE = (72, 90)


def photo(seed: int = 0, size=SIDE) -> Image.Image:
    return Image.fromarray(picture((200, 60, 50), seed, size))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def rotated(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(photo(), kind, exif=exif)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(width: int, height: int, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(body or bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def resized_header(content: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


def many_frames(width: int, height: int, frames: int) -> bytes:
    """A GIF of tiny frames on a large canvas, which a decoder may copy each of them onto."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def huge_frame() -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame + b"\x3b"


def webp_of(width: int, height: int) -> bytes:
    body = b"VP8L" + struct.pack("<I", 10) + b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(5)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def bmp_of(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def bmp(width, height, bits, pixels, *, header=40, compression=0, masks=(), palette=b"", offset=None) -> bytes:
    """A BMP with the header of a given length; rows of `pixels` (bytes) are padded to four bytes."""
    if header == 12:
        body = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        body = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
        body += struct.pack(f"<{len(masks)}I", *masks)
        body += bytes(max(0, header - len(body)))
    each = -(-width * bits // 8)
    rows = [pixels[i * each : (i + 1) * each] for i in range(abs(height))]
    data = b"".join(row + bytes(-len(row) % 4) for row in rows)
    start = 14 + len(body) + len(palette) if offset is None else offset
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + body + palette + data


def gif(
    frame, *, canvas=None, at=(0, 0), transparent=None, palette=None, local=False, interlaced=False, more=b""
) -> bytes:
    """A GIF of one frame of indices below 128 (height, width), in codes of 8 bits that are never compressed."""
    height, width = frame.shape
    canvas = canvas or (height, width)
    palette = bytes(range(256)) * 3 if palette is None else palette
    content = b"GIF89a" + struct.pack("<HHBBB", canvas[1], canvas[0], 0 if local else 0xF6, 0, 0)
    content += b"" if local else palette[:384]
    if transparent is not None:
        content += b"\x21\xf9\x04" + struct.pack("<BHB", 1, 0, transparent) + b"\0"
    content += b"\x21\xfe\x05hello\x00"
    flags = (0x86 if local else 0) | (0x40 if interlaced else 0)
    content += b"\x2c" + struct.pack("<HHHHB", at[1], at[0], width, height, flags) + (palette[:384] if local else b"")
    order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    rows = frame[order] if interlaced else frame
    codes = b"".join(b"\x80" + bytes(rows.ravel()[i : i + 100].tolist()) for i in range(0, frame.size, 100)) + b"\x81"
    blocks = b"".join(bytes([len(codes[i : i + 200])]) + codes[i : i + 200] for i in range(0, len(codes), 200))
    return content + b"\x07" + blocks + b"\x00" + more + b"\x3b"


def long_codes() -> bytes:
    """A GIF whose codes begin with 11 bits, which Pillow reads and giflib does not."""
    content = gif(np.zeros((4, 4), np.uint8))
    at = content.index(b"\x2c\0\0\0\0") + 10
    return content[:at] + b"\x0b" + content[at + 1 :]


def damaged(content: bytes, at: float, count: int = 40) -> bytes:
    start = int(len(content) * at)
    return content[:start] + bytes(count) + content[start + count :]


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


JPEG, PNG, GIF = encoded(photo(), "JPEG"), encoded(photo(), "PNG"), encoded(photo(), "GIF")
WEBP, BMP = encoded(photo(), "WEBP"), encoded(photo(), "BMP")
FRAMES = {"save_all": True, "append_images": [photo(1), photo(2)]}
GREY16 = Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257)
DEEP = b"".join(b"\0" + np.random.default_rng(row).bytes(90 * 6) for row in range(72))
FAINT = Image.fromarray(np.random.default_rng(0).integers(126, 130, (*SIDE, 3)).astype(np.uint8))

EXCLUDED = {  # name of the file, its bytes, kind of the finding, text in its action
    "empty.jpg": (b"", "zero bytes", "excluded"),
    "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "format not supported", "SVG"),
    "half.jpg": (cut(JPEG, 0.5), "truncated jpeg", "Invalid JPEG data"),
    "no_end.jpg": (JPEG[:-2], "truncated jpeg", "excluded"),
    "progressive_cut.jpg": (cut(encoded(photo(), "JPEG", progressive=True), 0.8), "truncated jpeg", "excluded"),
    "three_bytes.jpg": (b"\xff\xd8\xff", "truncated jpeg", "excluded"),
    "no_tables.jpg": (JPEG.replace(b"\xff\xdb", b"\xff\xfe"), "damaged jpeg", "excluded"),
    "no_size.jpg": (resized_header(JPEG, 0, 0), "damaged jpeg", "excluded"),
    "half.png": (cut(PNG, 0.5), "truncated png", "Invalid PNG data"),
    "no_end.png": (PNG[:-12], "truncated png", "excluded"),
    "bad_checksum.png": (damaged(PNG, 0.5), "damaged png", "excluded"),
    "no_size.png": (png_of(0, 0), "damaged png", "excluded"),
    "no_header.png": (PNG[:8] + PNG[33:], "too large", "excluded"),  # what stands where the size should
    "unknown_colour.png": (png_of(9, 9, 8, 5), "damaged png", "excluded"),
    "too_few_rows.png": (png_of(90, 9000, body=bytes(99)), "damaged png", "excluded"),
    "half.gif": (cut(GIF, 0.5), "truncated gif", "excluded"),
    "no_frames.gif": (many_frames(9, 9, 0), "damaged gif", "has no frame"),
    "half.bmp": (cut(BMP, 0.5), "damaged bmp", "excluded"),
    "negative_width.bmp": (bmp_of(-9, 9), "damaged bmp", "excluded"),
    "half.webp": (cut(WEBP, 0.5), "truncated webp", "excluded"),
    "moving.webp": (
        encoded(photo(), "WEBP", **FRAMES),
        "format not supported",
        "animated WebP (1); classes: a (1)",
    ),
    "bomb.png": (png_of(40_000, 40_000), "too large", "40000 × 40000 is more than 100,000,000 pixels"),
    "bomb_16.png": (png_of(2**31 - 1, 2**31 - 1, 16, 6), "too large", "excluded"),
    "bomb.jpg": (resized_header(JPEG, 65500, 65500), "too large", "65500 × 65500"),
    "bomb.gif": (many_frames(20_000, 20_000, 2), "too large", "20000 × 20000"),
    "bomb_frame.gif": (huge_frame(), "too large", "excluded"),
    "bomb.webp": (webp_of(16383, 16383), "too large", "16383 × 16383"),
    "bomb.bmp": (bmp_of(2**30, 2**30), "too large", "excluded"),
    "tiff.jpg": (encoded(photo(), "TIFF"), "format not supported", "TIFF"),
    "phone.jpg": (b"\x00\x00\x00\x18ftypheic" + bytes(99), "format not supported", "HEIC"),
    "new.png": (b"\x00\x00\x00\x18ftypavif" + bytes(99), "format not supported", "AVIF"),
    "film.gif": (b"\x00\x00\x00\x18ftypisom" + bytes(99), "format not supported", "video"),
    "wavelet.jpg": (encoded(photo(), "JPEG2000"), "format not supported", "JPEG 2000"),
    "layers.png": (b"8BPS\x00\x01" + bytes(99), "format not supported", "Photoshop"),
    "favicon.png": (encoded(photo(), "ICO"), "format not supported", "icon"),
    "runs.bmp": (bmp(8, 8, 8, bytes(64), compression=1), "format not supported", "compressed BMP"),
    "deep.jpg": (JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"), "format not supported", "12 bits"),
    "lossless.jpg": (JPEG.replace(b"\xff\xc0", b"\xff\xc3"), "format not supported", "lossless"),
    "long_codes.gif": (long_codes(), "format not supported", "more than 8 bits"),
    "flat.jpg": (encoded(Image.new("RGB", (90, 72), "grey"), "JPEG"), "placeholder", "almost one colour"),
    "faint.png": (encoded(FAINT, "PNG"), "placeholder", "almost one colour"),
    "invisible.png": (encoded(Image.new("RGBA", (90, 72), (9, 90, 9, 0)), "PNG"), "placeholder", "almost one colour"),
}
NO_IMAGES = {
    "notes.jpg": b"these are my notes",
    "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "paper.jpg": b"%PDF-1.7",
    "zeros.png": bytes(1000),
    "nearly.png": b"\x89PNG\n\x1a\n" + bytes(100),
}
KEPT = {
    "print.jpg": (encoded(photo().convert("CMYK"), "JPEG"), "CMYK"),
    "deep_grey.png": (encoded(GREY16, "PNG"), "16-bit"),
    "deep.png": (png_of(90, 72, 16, 2, DEEP), "16-bit"),
    "glass.png": (encoded(photo().convert("RGBA"), "PNG"), "alpha"),
    "grey_glass.png": (encoded(photo().convert("LA"), "PNG"), "alpha"),
    "palette_glass.png": (encoded(photo().convert("P"), "PNG", transparency=0), "alpha"),
    "glass.webp": (encoded(Image.fromarray(np.dstack([np.asarray(photo()), np.asarray(photo(1))[..., 0]])), "WEBP"),
                   "alpha"),
    "moving.gif": (encoded(photo(), "GIF", **FRAMES), "animated"),
    "moving.png": (encoded(photo(), "PNG", **FRAMES), "animated"),
    **{f"turned_{i}.jpg": (rotated("JPEG", i), "EXIF-rotated") for i in range(2, 9)},
    "turned.png": (rotated("PNG", 6), "EXIF-rotated"),
    "turned.webp": (rotated("WEBP", 6), "EXIF-rotated"),
    "really_png.jpg": (PNG, "wrong extension"),
    "really_jpeg.png": (JPEG, "wrong extension"),
    "really_webp.jpeg": (WEBP, "wrong extension"),
    "really_gif.bmp": (GIF, "wrong extension"),
    "pixel.png": (encoded(photo(size=(2, 3)), "PNG"), "extreme size"),
    "ribbon.jpg": (encoded(photo(size=(20, 400)), "JPEG"), "extreme size"),
    "grey.jpg": (encoded(photo().convert("L"), "JPEG"), None),
    "progressive.jpg": (encoded(photo(), "JPEG", progressive=True), None),
    "lossless.webp": (encoded(photo(), "WEBP", lossless=True), None),
    "one_bit.bmp": (encoded(photo().convert("1"), "BMP"), None),
    "one_bit.png": (encoded(photo().convert("1"), "PNG"), None),
    "trailing.bmp": (BMP + b"a profile, or nothing", None),
    "old.bmp": (bmp(90, 72, 24, np.asarray(photo())[::-1].tobytes(), header=12), None),
    "no_trailer.gif": (GIF[:-1], None),
    "palette.bmp": (encoded(photo().convert("P"), "BMP"), None),
    "stereo.jpg": (encoded(photo(), "MPO", save_all=True, append_images=[photo(1)]), None),
    "nonsense_exif.jpg": (JPEG[:2] + b"\xff\xe1\x00\x10Exif\x00\x00MM\xff\xff\xff\xff\xff\xff" + JPEG[2:], None),
    "upright_exif.jpg": (rotated("JPEG", 1), None),
    "JPEG.JPEG": (JPEG, None),
}  # fmt: skip
