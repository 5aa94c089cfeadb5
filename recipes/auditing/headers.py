"""Read the format, size, orientation and unusual traits of an image file from its header, without decoding.

Pillow is no replacement: it does not detect a missing end when it opens a file, and it finds EXIF data in places that
`augment.decode` ignores.
"""

from dataclasses import dataclass
from typing import Literal

from recipes import augment

_EXIF_WITHIN = 32768  # bytes; `augment.decode` also ignores EXIF data beyond them
EXIF = b"Exif\x00\x00"


@dataclass(frozen=True)
class Header:
    """Facts about an image from the first bytes of its file and the lengths of its blocks.

    Attributes:
        kind: "jpeg", "png", "gif", "bmp" or "webp"; empty for other formats.
        height: Stored height in pixels; 0 if the header does not contain it.
        width: Stored width in pixels; 0 if the header does not contain it.
        traits: Some of "CMYK", "16-bit", "alpha", "animated", "truncated".
        orientation: EXIF orientation, 1 to 8, as `augment.decode` applies it.
    """

    kind: str = ""
    height: int = 0
    width: int = 0
    traits: frozenset[str] = frozenset()
    orientation: int = 1

    @property
    def pixels(self) -> int:
        """Number of pixels of the decoded image; 0 if the header does not contain its size."""
        return self.height * self.width


def read_header(content: bytes) -> Header:
    """Return the header of encoded bytes. Missing or malformed fields are 0; the function never raises."""
    kind = augment.file_kind(content)
    return _READERS[kind](content) if kind else Header()


def _number(content: bytes, at: int, size: int, order: Literal["big", "little"] = "big") -> int:
    return int.from_bytes(content[at : at + size], order)


def _jpeg(content: bytes) -> Header:
    """Read the segments up to the first scan; one of them is the frame header (SOFn)."""
    height, width, orientation = 0, 0, 1
    traits = set() if content.rstrip(b"\x00").endswith(b"\xff\xd9") else {"truncated"}
    at = 2
    while 0 <= (at := content.find(b"\xff", at)) < len(content) - 4:  # libjpeg also skips bytes between segments
        marker, length = content[at + 1], _number(content, at + 2, 2)
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0x00, 0x01, *range(0xD0, 0xD8)):  # not a segment
            at += 2
            continue
        if marker in (0xD8, 0xD9, 0xDA):
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not height:
            height, width = _number(content, at + 5, 2), _number(content, at + 7, 2)
            if content[at + 9 : at + 10] == b"\x04":
                traits.add("CMYK")
        if marker == 0xE1 and content[at + 4 : at + 10] == EXIF and at < _EXIF_WITHIN:
            orientation = _orientation(content[at + 10 : min(at + 2 + length, _EXIF_WITHIN)])
        at += 2 + max(2, length)
    return Header("jpeg", height, width, frozenset(traits), orientation)


def _orientation(tiff: bytes) -> int:
    """Return the tag 0x0112 (orientation) in the first directory of a TIFF block; 1 if the tag is missing."""
    order = "big" if tiff[:1] == b"M" else "little"
    directory = _number(tiff, 4, 4, order)
    for entry in range(directory + 2, directory + 2 + 12 * min(_number(tiff, directory, 2, order), 340), 12):
        if _number(tiff, entry, 2, order) == 0x0112:
            value = _number(tiff, entry + 8, 2, order)
            return value if 1 <= value <= 8 else 1
    return 1


def _png(content: bytes) -> Header:
    width, height = _number(content, 16, 4), _number(content, 20, 4)
    traits = {"16-bit"} if content[24:25] == b"\x10" else set()
    traits |= {"alpha"} if content[25:26] in (b"\x04", b"\x06") else set()
    at, ended, orientation = 8, False, 1
    while at + 8 <= len(content):
        length, name = _number(content, at, 4), content[at + 4 : at + 8]
        ended = ended or name == b"IEND"
        traits |= {b"tRNS": {"alpha"}, b"acTL": {"animated"}}.get(name, set())
        if name == b"eXIf":
            orientation = _orientation(content[at + 8 : at + 8 + length])
        at += 12 + length
    return Header("png", height, width, frozenset(traits if ended else traits | {"truncated"}), orientation)


def _gif(content: bytes) -> Header:
    """Read the blocks of a GIF. The size is that of the canvas, enlarged if the first frame exceeds it."""
    width, height = _number(content, 6, 2, "little"), _number(content, 8, 2, "little")
    flags = content[10] if len(content) > 10 else 0
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames = 0
    while at < len(content) and content[at] != 0x3B:
        if content[at] == 0x2C:
            left, top, across, down = (_number(content, at + i, 2, "little") for i in (1, 3, 5, 7))
            if not frames:
                width, height = max(width, left + across), max(height, top + down)
            frames += 1
            flags = content[at + 9] if at + 9 < len(content) else 0
            at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif content[at] == 0x21:
            at += 2
        else:  # not a block: the decoder skips this byte
            at += 1
            continue
        while at < len(content) and content[at]:
            at += 1 + content[at]
        at += 1
    ended = content[at : at + 1] == b"\x3b"
    traits = ({"animated"} if frames > 1 else set()) | (set() if ended else {"truncated"})
    return Header("gif", height, width, frozenset(traits))


def _bmp(content: bytes) -> Header:
    if _number(content, 14, 4, "little") == 12:  # the header of OS/2
        return Header("bmp", _number(content, 20, 2, "little"), _number(content, 18, 2, "little"))
    width, height = (int.from_bytes(content[at : at + 4], "little", signed=True) for at in (18, 22))
    return Header("bmp", abs(height), abs(width))


def _webp(content: bytes) -> Header:
    """Read the chunks of a RIFF file. The extended format adds a canvas to the size of the picture."""
    traits, sizes, at, orientation = set(), [(0, 0)], 12, 1
    if _number(content, 4, 4, "little") + 8 > len(content):
        traits.add("truncated")
    while at + 8 <= len(content):
        name, length, body = content[at : at + 4], _number(content, at + 4, 4, "little"), at + 8
        if name == b"VP8X":
            flags = _number(content, body, 1)
            traits |= {name for bit, name in ((0x02, "animated"), (0x10, "alpha")) if flags & bit}
            sizes.append((_number(content, body + 7, 3, "little") + 1, _number(content, body + 4, 3, "little") + 1))
        elif name == b"VP8 ":
            height, width = (_number(content, body + i, 2, "little") & 0x3FFF for i in (8, 6))
            sizes.append((height, width))
        elif name == b"VP8L":
            bits = _number(content, body + 1, 4, "little")
            sizes.append(((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1))
            traits |= {"alpha"} if bits >> 28 & 1 else set()
        elif name == b"EXIF":
            orientation = _orientation(content[body : body + length].removeprefix(EXIF))
        at = body + length + length % 2
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    return Header("webp", height, width, frozenset(traits), orientation)


_READERS = {"jpeg": _jpeg, "png": _png, "gif": _gif, "bmp": _bmp, "webp": _webp}
