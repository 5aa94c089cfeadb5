"""Recognise images by their extensions, and other files by their first bytes."""

import os
import stat

from recipes import augment

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"})
# Extensions of pictures and films that are not supported. Some, such as raw photos, have no distinctive first bytes.
UNREAD_PICTURES = frozenset({
    ".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".j2k", ".jxl", ".psd", ".ico", ".svg", ".pgm", ".ppm", ".pbm",
    ".pnm", ".tga", ".hdr", ".exr", ".dcm", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".apng",
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".3gp", ".wmv", ".flv", ".mpg", ".mpeg", ".pcx", ".dcx", ".jxr",
    ".wdp", ".hdp", ".jpx", ".jpf", ".jpc", ".j2c", ".jls", ".raf", ".x3f", ".mrw", ".pef", ".srw", ".xcf", ".pfm",
    ".pam", ".qoi", ".dds", ".blp", ".ktx", ".ktx2", ".xbm", ".xpm", ".fits", ".fts", ".mng", ".jng", ".sgi", ".rgb",
    ".rgba", ".ras", ".dpx", ".cin", ".ff", ".im", ".msp", ".bpg", ".flif", ".djvu", ".djv", ".iff", ".ilbm", ".lbm",
    ".icns", ".cur", ".wmf", ".emf", ".ps", ".eps", ".svgz", ".vda", ".icb", ".vst",
})  # fmt: skip
# Extensions of files that often lie beside images by the thousand; opening each would be slow on network storage.
_NO_PICTURES = frozenset({
    ".txt", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".md", ".html", ".htm", ".py", ".ipynb", ".pdf", ".npy", ".npz",
    ".keras", ".h5", ".hdf5", ".tfrecord", ".parquet", ".yaml", ".yml", ".zip", ".tar", ".gz", ".7z", ".rar",
})  # fmt: skip
_FOREIGN = (
    (0, b"II*\x00", "TIFF"), (0, b"MM\x00*", "TIFF"), (0, b"II+\x00", "TIFF"), (0, b"MM\x00+", "TIFF"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"), (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"), (0, b"8BPS", "Photoshop"),
    (4, b"ftypavi", "AVIF"), (4, b"ftyphei", "HEIC"), (4, b"ftypmif", "HEIC"), (4, b"ftyphev", "HEIC"),
    (4, b"ftypmsf", "HEIC"), (4, b"ftyp", "video"), (128, b"DICM", "DICOM"),
)  # fmt: skip
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes; checked because text may also begin with "BM"
IMAGE = "image"


def kind_of(path: str) -> str:
    """Return IMAGE for a file that can be decoded, the name of an unsupported format, or "" for any other file.

    An extension of an image decides. Otherwise the first bytes decide, and, if these are unknown, the extensions of
    unsupported formats: ".cr2" gives "CR2".
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in IMAGE_SUFFIXES:
        return IMAGE
    if ending in _NO_PICTURES:
        return ""
    head = _head(path)
    kind = augment.file_kind(head)
    if kind and (kind != "bmp" or int.from_bytes(head[14:18], "little") in _BMP_HEADERS):
        return IMAGE
    named = next((name for at, magic, name in _FOREIGN if head.startswith(magic, at)), "")
    return named or (ending[1:].upper() if ending in UNREAD_PICTURES else "")


def _head(path: str) -> bytes:
    """Return the first bytes of a regular file that can be read, otherwise b"". Opening a pipe would block forever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(132)
    except (OSError, ValueError):
        return b""
