"""Recognise file formats that cannot be read by their first bytes, independent of the file's name."""

import numpy as np
import tensorflow as tf

from .header import bytes_at

# Name of a format → first bytes of its files; `?` stands for any byte. The first matching entry counts.
SIGNATURES = {
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JPEG XR": (b"II\xbc",),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\0\0\0\x0cJXL ", b"\xff\x0a"),
    "AVIF": (b"????ftypavi",),
    "HEIC": (b"????ftyphei", b"????ftypmif", b"????ftyphev", b"????ftypmsf"),
    "camera raw": (b"????ftypcrx", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILMCCD-RAW", b"FOVb"),
    "video": (b"????ftyp", b"RIFF????AVI ", b"\x1a\x45\xdf\xa3", b"\0\0\1\xb3", b"\0\0\1\xba"),
    "Photoshop": (b"8BPS",),
    "GIMP": (b"gimp xcf",),
    "PPM, PGM or PBM": tuple(b"P%d%c" % (kind, gap) for kind in range(1, 8) for gap in b" \t\r\n"),
    "PFM": (b"Pf\n", b"PF\n"),
    "PCX": (b"\n?\1\1", b"\n?\1\2", b"\n?\1\4", b"\n?\1\x08", b"\xb1\x68\xde\x3a"),
    "OpenEXR": (b"v/1\1",),
    "Radiance HDR": (b"#?RADIANCE", b"#?RGBE"),
    "QOI": (b"qoif",),
    "DDS": (b"DDS ",),
    "BLP": (b"BLP1", b"BLP2"),
    "KTX": (b"\xabKTX ",),
    "XBM": (b"#define ",),
    "XPM": (b"/* XPM */",),
    "DICOM": (b"?" * 128 + b"DICM",),
    "FITS": (b"SIMPLE  =",),
    "MNG": (b"\x8aMNG\r\n\x1a\n",),
    "JNG": (b"\x8bJNG\r\n\x1a\n",),
    "SGI": (b"\1\xda\0?\0", b"\1\xda\1?\0"),
    "Sun raster": (b"\x59\xa6\x6a\x95",),
    "DPX": (b"SDPX", b"XPDS"),
    "Cineon": (b"\x80\x2a\x5f\xd7",),
    "farbfeld": (b"farbfeld",),
    "IM": (b"Image type:",),
    "MSP": (b"DanM", b"LinS"),
    "BPG": (b"BPG\xfb",),
    "FLIF": (b"FLIF",),
    "DjVu": (b"AT&TFORM",),
    "ILBM": (b"FORM????ILBM",),
    "OS/2 bitmap array": (b"BA????????????BM",),
    "icon": (b"icns", b"\0\0\1\0?\0", b"\0\0\2\0?\0"),
    "Windows metafile": (b"\xd7\xcd\xc6\x9a", b"\1\0\0\0" + b"?" * 36 + b" EMF"),
    "PostScript": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
}
_SVG = r"(?:\xef\xbb\xbf|\x{feff})?\s*(?:<(?:\?xml|!--|!DOCTYPE svg)\C*)?<(?:svg:)?svg[\s>]\C*"
_SVG_WITHIN = 1024  # number of bytes to search, because a comment may precede the first element of an SVG file
_ROWS = [(np.frombuffer(start, np.uint8), name) for name, starts in SIGNATURES.items() for start in starts]
_LONGEST = max(len(start) for start, _ in _ROWS)
_BYTES = np.stack([np.pad(start, (0, _LONGEST - len(start)), constant_values=ord("?")) for start, _ in _ROWS])
_NAMES = [name for _, name in _ROWS]


def foreign_format(content) -> tf.Tensor:
    """Return the name of the unreadable format of encoded bytes, as a string scalar; empty for any other format."""
    head = bytes_at(content, 0, _LONGEST)
    fits = tf.reduce_all(tf.equal(head, _BYTES) | tf.equal(_BYTES, ord("?")), 1)
    by_start = tf.where(tf.reduce_any(fits), tf.gather(_NAMES, tf.argmax(fits)), "")
    is_svg = tf.strings.regex_full_match(tf.strings.substr(content, 0, _SVG_WITHIN), _SVG)
    return tf.where(_is_tga(content), "TGA", tf.where(is_svg, "SVG", by_start))


def _is_tga(content):
    """Return whether bytes have a consistent TGA header; TGA files have no signature."""
    head = tf.cast(bytes_at(content, 0, 18), tf.int32)
    mapped, kind, entry, depth = head[1], head[2] % 8, head[7], head[16]
    # allowed values for each `kind`
    depths = tf.constant([[8, 8, 8, 8], [8, 16, 16, 16], [15, 16, 24, 32], [1, 8, 16, 16]])
    known = tf.reduce_any(tf.equal(head[2], [1, 2, 3, 9, 10, 11]))
    deep = tf.reduce_any(tf.equal(depth, tf.gather(depths, tf.minimum(kind, 3))))
    palette = tf.equal(mapped, 1) & tf.reduce_any(tf.equal(entry, [15, 16, 24, 32]))
    without = tf.equal(mapped, 0) & tf.not_equal(kind, 1) & tf.reduce_all(tf.equal(head[3:8], 0))
    sized = tf.reduce_any(head[12:14] > 0) & tf.reduce_any(head[14:16] > 0)
    return known & deep & (palette | without) & sized & (head[17] < 64)
