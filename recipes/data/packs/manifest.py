"""Read and check the description of a pack: pack.json, and the index that locates each of its images."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recipes.core.archives import load_arrays
from recipes.core.output import shortened
from recipes.core.text import described
from recipes.data.folders.layout import SPLIT_NAMES
from recipes.data.images import ImageData, Splits
from recipes.data.packs.records import FRAME, Index, Records, broken
from recipes.errors import DataError, UnsafeFileError

MANIFEST, INDEX, UNFINISHED = "pack.json", "index.npz", "unfinished.json"
FORMAT, VERSION = "keras-recipes pack", 1
SHARD_NAME = re.compile(rf"({'|'.join(SPLIT_NAMES)})-\d{{5}}-of-\d{{5}}\.tfrecord")
_LARGEST = 2**28  # largest size of the manifest in bytes, enough for a million shards
_COLUMNS = {"size": "i8", "label": "i4", "order": "i8", "name_end": "i8", "names": "u1"}


@dataclass(frozen=True)
class Shard:
    """One TFRecord file: its name, the split and number of its images, its size in bytes, and its SHA-256."""

    name: str
    split: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The description of a finished pack.

    Attributes:
        source: Digest of the packed dataset and the number of shards.
        class_names: The classes, in the order of their labels.
        shards: The files with the images.
        index: SHA-256 of index.npz.
    """

    source: str
    class_names: tuple[str, ...]
    shards: tuple[Shard, ...]
    index: str

    def images(self, split: str) -> int:
        """Return the number of images of a split."""
        return sum(shard.images for shard in self.shards if shard.split == split)

    def __str__(self) -> str:
        parts = ", ".join(f"{self.images(split):,} {split}" for split in SPLIT_NAMES if self.images(split))
        size = sum(shard.bytes for shard in self.shards)
        return f"{parts} images of {len(self.class_names)} classes, {size:,} bytes in {len(self.shards)} shard(s)"

    def __repr__(self) -> str:
        return described("Manifest", str(self))

    def text(self) -> str:
        splits = {split: self.images(split) for split in SPLIT_NAMES if self.images(split)}
        return json.dumps({"format": FORMAT, "version": VERSION, "images": splits, **asdict(self)}, indent=1)


def sha256(path: Path) -> str:
    with open(path, "rb", buffering=0) as file:
        digest, block = hashlib.sha256(), memoryview(bytearray(2**20))
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def is_pack(folder: Path) -> bool:
    """Return whether `recipes pack` has written to this folder; the pack may be unfinished."""
    return (folder / MANIFEST).is_file() or (folder / UNFINISHED).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Return the checked manifest of a pack.

    Raises:
        DataError: If the pack is unfinished or damaged, has another format version, names files outside its folder, or
            a shard is missing or has changed its size.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder} is an unfinished pack ({UNFINISHED}, no {MANIFEST}); run the same `recipes pack` "
            "again to resume the pack, or delete the folder",
            code="pack.unfinished", path=folder,
        )  # fmt: skip
    try:
        size = path.stat().st_size
        entries = json.loads(path.read_text(encoding="utf-8")) if size <= _LARGEST else {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}", code="pack.unreadable", path=path) from error
    if size > _LARGEST:
        seen = f"{path} is too large: {size:,} bytes are more than {_LARGEST:,}"
        raise DataError(seen, code="pack.too_large", path=path)
    if not isinstance(entries, dict) or entries.get("format") != FORMAT:
        raise DataError(
            f"{path} is not the manifest of a pack; if {folder} is a folder of class folders, rename this file",
            code="pack.not_a_pack", path=path,
        )  # fmt: skip
    if entries.get("version") != VERSION:
        raise DataError(
            f"{path} has format version {entries.get('version')!r:.20}, but this library reads version {VERSION}; "
            "pack the images "
            "again, or use the version of the library that wrote it",
            code="pack.version", path=path, version=entries.get("version"),
        )  # fmt: skip
    manifest = _checked(entries, path)
    for shard in manifest.shards:
        _check_file(folder / shard.name, shard.bytes)
    return manifest


def _checked(entries: Mapping[str, Any], path: Path) -> Manifest:
    """Return the manifest with these entries of a JSON file after checking the type of each entry."""

    def wrong(problem: str) -> DataError:
        return broken(path, "pack.damaged", f"is damaged: {problem}", problem=problem)

    names, shards = entries.get("class_names"), entries.get("shards")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise wrong("class_names is not a list of different names")
    if not isinstance(shards, list) or not shards:
        raise wrong("shards is not a list of files")
    kinds = {"name": str, "split": str, "images": int, "bytes": int, "sha256": str}
    for shard in shards:
        if not isinstance(shard, dict) or {k: type(v) for k, v in shard.items()} != kinds:
            raise wrong(f"the shard {shard!r:.200} does not have the entries {list(kinds)}")
        match = SHARD_NAME.fullmatch(shard["name"])
        if not match or match[1] != shard["split"]:
            raise wrong(
                f"a shard is named {shard['name']!r:.200}; expected a name such as train-00000-of-00008.tfrecord"
            )
        if shard["images"] < 1 or shard["bytes"] < FRAME * shard["images"]:
            raise wrong(f"{shard['name']} has {shard['images']:,} images in {shard['bytes']:,} bytes")
    if len({shard["name"] for shard in shards}) < len(shards):
        raise wrong("a shard is listed twice")
    if not all(isinstance(entries.get(key), str) for key in ("source", "index")):
        raise wrong("source or index is missing")
    return Manifest(entries["source"], tuple(names), tuple(Shard(**shard) for shard in shards), entries["index"])


def _check_file(path: Path, size: int) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise broken(path, "pack.unreadable", f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is not a regular file", code="pack.unreadable", path=path)
    if status.st_size != size:
        seen = f"was altered or truncated: it has {status.st_size:,} bytes instead of {size:,}"
        raise broken(path, "pack.altered", seen, size=status.st_size, expected=size)


def write_index(path: Path, sizes: np.ndarray, labels: np.ndarray, order: np.ndarray, names: Sequence[bytes]) -> None:
    """Write index.npz, with one row for each image in the order of the shards.

    Args:
        path: The file.
        sizes: Number of bytes (n,) of each record's data.
        labels: Class (n,) of each image.
        order: Position (n,) of each image in its split.
        names: Name of each image.
    """
    ends = np.cumsum([len(name) for name in names])
    columns = [sizes, labels, order, ends, np.frombuffer(b"".join(names), np.uint8)]
    arrays = {key: np.asarray(c, kind) for (key, kind), c in zip(_COLUMNS.items(), columns, strict=True)}
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]  # the stubs take every keyword for allow_pickle


def read_pack(folder: Path) -> Splits:
    """Return the images of a pack in the order of the original dataset; each image is read when it is needed.

    Raises:
        DataError: If `read_manifest` rejects the pack, or the index does not fit the shards.
    """
    manifest = read_manifest(folder)
    path = folder / INDEX
    try:
        if sha256(path) != manifest.index:
            raise broken(path, "pack.altered", f"was altered: its SHA-256 differs from that in {MANIFEST}")
        columns = load_arrays(path)
    except (OSError, UnsafeFileError) as error:
        raise broken(path, "pack.unreadable", f"cannot be read: {error}") from error
    images = np.array([shard.images for shard in manifest.shards])
    shard = np.repeat(np.arange(len(images), dtype=np.int32), images)
    if wrong := _inconsistency(columns, manifest, shard):
        raise broken(path, "pack.index", f"does not fit the shards: {wrong}", problem=wrong)
    framed = columns["size"] + FRAME
    starts = np.concatenate([[0], np.cumsum([s.bytes for s in manifest.shards])[:-1]])
    offset = np.cumsum(framed) - framed - np.repeat(starts, images)
    shards = tuple(str(folder / s.name) for s in manifest.shards)
    index = Index(folder, shards, shard, offset, columns["size"], manifest.index)
    ends, blob = columns["name_end"].tolist(), columns["names"].tobytes()
    names = [os.path.join(folder, os.fsdecode(blob[a:b])) for a, b in zip([0, *ends], ends, strict=False)]
    split = np.array([s.split for s in manifest.shards])[shard]
    parts: dict[str, ImageData] = {}
    for name in SPLIT_NAMES:
        rows = np.flatnonzero(split == name)
        rows = rows[np.argsort(columns["order"][rows])]
        if len(rows):
            labels = columns["label"][rows].astype(np.int64)
            parts[name] = ImageData(
                Records(index, rows), labels, manifest.class_names, tuple(names[row] for row in rows)
            )  # fmt: skip
    return Splits(parts["train"], parts.get("validation"), parts.get("test"))


def _inconsistency(columns: Mapping[str, np.ndarray], manifest: Manifest, shard: np.ndarray) -> str:
    """Return a contradiction within the index, or between the index and the shards; empty without one."""
    n = len(shard)
    kinds = {key: (c.dtype.str[1:], c.ndim) for key, c in columns.items()}
    if kinds != {key: (kind, 1) for key, kind in _COLUMNS.items()}:
        return f"its columns have the types {kinds}"
    if any(len(columns[key]) != n for key in _COLUMNS if key != "names"):
        return f"it does not have {n:,} rows"
    if not manifest.images("train"):
        return "no image belongs to the split train"
    limit = np.array([s.bytes for s in manifest.shards])
    size, ends = columns["size"], columns["name_end"]
    if (size < 0).any() or (size > limit[shard]).any():
        return "a record is larger than its shard"
    if (np.bincount(shard, size + FRAME) != limit).any():  # exact, because the sums are below 2⁵³
        return "the lengths of the records in a shard do not add up to its size"
    if (columns["label"] < 0).any() or (columns["label"] >= len(manifest.class_names)).any():
        return "a label is not a class"
    if (np.diff(ends, prepend=0) < 0).any() or ends[-1] != len(columns["names"]):
        return "the byte ranges of the names overlap"
    split = np.array([SPLIT_NAMES.index(s.split) for s in manifest.shards])[shard]
    places = np.lexsort((columns["order"], split))
    counts = np.bincount(split, minlength=len(SPLIT_NAMES))
    if (columns["order"][places] != np.concatenate([np.arange(c) for c in counts])).any():
        return "two images have the same position in a split"
    return ""


def in_pack(folder: Path, key: str, rows: list[int], labels: list[int], class_names: Sequence[str]) -> ImageData | None:
    """Return the images at these rows of a pack's index; None if the pack was removed or replaced."""
    try:
        parts = [(data.images, data.names) for data in read_pack(folder).given.values()]
    except DataError:
        return None
    found = [(own, names) for own, names in parts if isinstance(own, Records) and own.index.key == key]
    name_of = {row: name for own, names in found for row, name in zip(own.rows.tolist(), names, strict=True)}
    if not found or not name_of.keys() >= set(rows):
        return None
    records = Records(found[0][0].index, np.array(rows, np.int64))
    return ImageData(records, np.array(labels, np.int64), tuple(class_names), tuple(name_of[row] for row in rows))


def verify(parts: Iterable[ImageData]) -> None:
    """Compare the SHA-256 of all shards of packed images with the manifest, in one pass over all bytes.

    Raises:
        DataError: If shards were altered; the message names them.
    """
    folders = {data.records.index.folder for data in parts if data.records is not None}
    for folder in folders:
        shards = read_manifest(folder).shards
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(lambda shard, folder=folder: sha256(folder / shard.name), shards))
        altered = [shard.name for shard, sha in zip(shards, found, strict=True) if sha != shard.sha256]
        if altered:
            seen = f"is damaged: {len(altered)} of {len(shards)} shards do not match their SHA-256"
            raise broken(folder, "pack.altered", f"{seen}: {shortened(altered)}", shards=tuple(altered))
