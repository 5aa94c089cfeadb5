"""A dataset in few large files: TFRecord shards, an index that finds each image in them, a manifest of checksums."""

import hashlib
import json
import logging
import math
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

from recipes.core.files import check_writable, write_whole
from recipes.core.limits import MAX_BYTES
from recipes.core.locks import ProcessLock
from recipes.core.output import safe_output
from recipes.data.images import ImageData, Splits
from recipes.data.packs.manifest import (
    INDEX,
    MANIFEST,
    SHARD_NAME,
    UNFINISHED,
    Manifest,
    Shard,
    read_manifest,
    sha256,
    write_index,
)
from recipes.data.packs.records import Records, digest, example, framed, parsed
from recipes.data.sources import load
from recipes.data.tables.splits import check_may_be_split
from recipes.errors import DataError, OutputError

logger = logging.getLogger(__name__)
SHARD_BYTES = 2**28  # of images in one file, where nothing else is asked for
_OVERHEAD = 256  # bytes that a record may need beside image and names
_MOST = 99_999
_LOCK = ".lock"
_BLOCK = 64  # images read at once
_GOES_ON = "give the same command again: it goes on from there"


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is written: the images of each shard, by its name, with what they are called in it.

    source: tells this dataset and these shards from others.  bytes: at most, of all shards.
    """

    splits: Splits
    names: dict[str, list[str]]
    shards: dict[str, tuple[str, np.ndarray]]
    source: str
    bytes: int


@safe_output()
def pack(dataset, out, *, shards: int | None = None) -> Manifest:
    """Write the images of a dataset into few large files, for file systems that do not like millions of small ones.

    `recipes.finetune(out)`, and whatever else takes a dataset, reads the folder `out` as it reads the one that was
    packed: the same images in the same order, splits and class names, encoded bytes untouched, so that the same seed
    trains the same weights. An image is found by its byte offset and read by itself; nothing is read to be skipped.

    out: a new or empty folder. It gets `train-00000-of-00008.tfrecord` and so on (tf.train.Example: image, label,
        class, name, blake2b, in the order of a hash of their names, so that each shard is a random sample), index.npz
        and, last, pack.json, with the SHA-256 of all of them. A pack that was stopped goes on when it is given the same
        images; a finished one is given back.
    shards: files for the training images; validation and test images get as many in proportion, at least one. Default:
        so many that each holds 256 MiB.

    Raises: DataError when the dataset is none, for images that cannot be read or are not uint8, and for a table of
        groups without validation images; OutputError for a folder that cannot be written, is full, or holds something
        else.

    >>> recipes.pack("photos/", "packed/", shards=16); recipes.finetune("packed/")
    """
    out, splits = Path(out).expanduser(), load(dataset)
    if splits.validation is None:
        check_may_be_split(splits.table)  # a pack keeps no groups
    _check_apart(out, dataset)
    for note in splits.notes:
        logger.info(note)
    plan = _planned(splits, _root(dataset), shards)
    if (out / MANIFEST).is_file():
        return _finished(out, plan)
    check_writable(out)
    with _taken(out, plan):
        missing = [name for name in plan.shards if not (out / name).is_file()]
        free, needed = shutil.disk_usage(out).free, plan.bytes * len(missing) // len(plan.shards)
        if needed > free:
            raise OutputError(f"{out} has room for {free:,} bytes, and up to {needed:,} are to be written; make room")
        known = len(plan.shards) - len(missing)
        if known:
            logger.info(f"going on with the pack in {out}: {known} of {len(plan.shards)} shards are written")
        try:
            found = [_shard(out / name, plan, name) for name in _shown(plan.shards)]
            manifest = _described(out, plan, found)
        except (OSError, tf.errors.OpError) as error:
            said = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OutputError(f"{out} cannot be written: {said}; make room, then {_GOES_ON}") from error
    return manifest


def _shown(names):
    return track(names, "packing", console=Console(stderr=True), transient=True, disable=len(names) < 4)


def _root(dataset) -> Path | None:
    """From where the names of files are told."""
    if not isinstance(dataset, str | os.PathLike):
        return None
    path = Path(dataset).expanduser()
    return path if path.is_dir() else path.parent


def _check_apart(out: Path, dataset) -> None:
    """Raises: OutputError for a folder within that of the dataset, where it would be taken for a class."""
    inside = isinstance(dataset, str | os.PathLike) and Path(dataset).expanduser().resolve() in out.resolve().parents
    if inside:
        raise OutputError(
            f"{out} lies within {dataset}, and would be a part of that dataset; choose a folder beside it"
        )


def _planned(splits: Splits, root: Path | None, shards: int | None) -> _Plan:
    sizes = {split: _sizes(data) for split, data in splits.given.items()}
    if shards is None:
        shards = min(_MOST, len(splits.train), math.ceil(sizes["train"].sum() / SHARD_BYTES) or 1)
    if isinstance(shards, bool) or not isinstance(shards, int | np.integer) or not 1 <= shards <= _MOST:
        raise DataError(f"shards is {shards!r}; expected how many files, from 1 to {_MOST:,}")
    if shards > len(splits.train):
        raise DataError(f"shards is {shards}, but there are {len(splits.train)} training images; give fewer")
    told = hashlib.blake2b(repr((splits.train.class_names, int(shards))).encode("utf-8", "surrogateescape"))
    names, files, most = {}, {}, 0
    for split, data in splits.given.items():
        names[split] = [_told(name, root) for name in data.names]
        count = max(1, min(len(data), round(int(shards) * len(data) / len(splits.train))))
        hashed = sorted(range(len(data)), key=lambda i, called=names[split]: (_hash(called[i]), i))
        for k, part in enumerate(np.array_split(np.array(hashed, int), count)):
            files[f"{split}-{k:05}-of-{count:05}.tfrecord"] = split, part
        most += int(sizes[split].sum()) + sum(_OVERHEAD + 4 * len(name) for name in names[split])
        told.update(repr((split, names[split])).encode("utf-8", "surrogateescape"))
        told.update(_contents(data, sizes[split]))
        told.update(data.labels.tobytes())
    return _Plan(splits, names, files, told.hexdigest()[:32], most)


def _told(name: str, root: Path | None) -> str:
    """The name of an image without the folder that it was packed from."""
    inside = root is not None and Path(name).is_relative_to(root)
    return Path(name).relative_to(root).as_posix() if inside else name


def _hash(name: str) -> bytes:
    return hashlib.blake2b(os.fsencode(name), digest_size=8).digest()


def _sizes(data: ImageData) -> np.ndarray:
    """Bytes of each image, at most.

    Raises: DataError naming the images that cannot be packed.
    """
    if data.in_memory_pixels:
        if data.images.dtype != np.uint8 and not (data.images == np.round(data.images)).all():
            raise DataError(f"the images are {data.images.dtype} with fractions; round them to uint8, or give files")
        return np.full(len(data), 2 * data.images[0].size + 1024)
    if not data.on_disk:
        return data.images.index.size[data.images.rows] if _records(data) else np.array(list(map(len, data.images)))
    sizes, closed = [], []
    for path, name in zip(data.images, data.names, strict=True):
        try:
            status = os.stat(path)
            fit = stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK)
            why = "" if fit else "no regular file that may be read"
            why = f"{status.st_size:,} bytes are more than {MAX_BYTES:,}" if status.st_size > MAX_BYTES else why
        except OSError as error:
            why = error.strerror
        sizes.append(0 if why else status.st_size)
        closed += [f"{name}: {why}"] if why else []
    if closed:
        shown = "; ".join(closed[:5]) + (f" and {len(closed) - 5} more" if len(closed) > 5 else "")
        raise DataError(f"{len(closed)} images cannot be packed ({shown}); mend or delete them, and pack again")
    return np.array(sizes, np.int64)


def _records(data: ImageData) -> bool:
    return isinstance(data.images, Records)


def _contents(data: ImageData, sizes: np.ndarray) -> bytes:
    """What is another where images of the same names are others: of files their sizes and times of change."""
    if data.on_disk:
        return repr(
            [(int(size), os.stat(path).st_mtime_ns) for size, path in zip(sizes, data.images, strict=True)]
        ).encode()
    if data.in_memory_pixels:
        return hashlib.sha256(np.ascontiguousarray(data.images)).digest()
    return repr(data.images).encode() if _records(data) else b"".join(map(digest, data.images))


def _finished(out: Path, plan: _Plan) -> Manifest:
    manifest = read_manifest(out)
    if manifest.source != plan.source:
        raise OutputError(f"{out} holds a pack of other images or of other shards; choose another folder, or delete it")
    (out / UNFINISHED).unlink(missing_ok=True)  # it was stopped in the last instant
    logger.info(f"{out} holds this pack already, nothing is written; to write it anew, delete the folder")
    return manifest


@contextmanager
def _taken(out: Path, plan: _Plan):
    """The folder, which is another process's no longer than that lives; what is not finished in it is this plan's.

    Raises: OutputError otherwise.
    """
    present = {p.name for p in out.iterdir()} - {_LOCK}
    strange = sorted(name for name in present if not _ours(name.removeprefix(".new-")))
    mark, source = out / UNFINISHED, json.dumps({"source": plan.source})
    if strange or (present and not mark.exists()):
        raise OutputError(f"{out} holds something else ({', '.join(strange[:3]) or 'shards'}); choose an empty folder")
    lock = ProcessLock(out / _LOCK)
    if not lock.acquire():
        raise OutputError(f"{out} is being packed by another process; wait until it ends", code="output.locked")
    try:
        before = mark.read_text(encoding="utf-8") if mark.exists() else ""
        if before not in ("", source):
            what = "holds the beginning of a pack of other images or of other shards"
            raise OutputError(f"{out} {what}; delete it, or choose another folder")
        if not before:
            mark.write_text(source, encoding="utf-8")
        yield
        mark.unlink(missing_ok=True)
    finally:
        lock.release(delete=not mark.exists())


def _ours(name: str) -> bool:
    return name in (UNFINISHED, INDEX, MANIFEST) or SHARD_NAME.fullmatch(name) is not None


def _shard(path: Path, plan: _Plan, name: str) -> tuple[Shard, list[int]]:
    """The shard, written unless it is there already, and read again: the bytes of its records."""
    split, rows = plan.shards[name]
    data, names = plan.splits.given[split], plan.names[split]
    if not path.is_file():
        write_whole(path, lambda temporary: _write(temporary, data, names, rows))
    sizes, altered = [], f"{path} was altered since it was written; delete it, then {_GOES_ON}"
    with open(path, "rb") as file:
        for record in framed(file, str(path)):
            try:
                _, called, label = parsed(record)
            except ValueError as error:
                raise DataError(f"{altered} ({error})") from error
            row = rows[len(sizes)] if len(sizes) < len(rows) else None
            if row is None or (called, label) != (os.fsencode(names[row]), data.labels[row]):
                raise DataError(altered)
            sizes.append(len(record))
    if len(sizes) < len(rows):
        raise DataError(altered)
    return Shard(name, split, len(rows), path.stat().st_size, sha256(path)), sizes


def _write(path: Path, data: ImageData, names: list[str], rows: np.ndarray) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer, ThreadPoolExecutor(8) as pool:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            for row, image in zip(block, pool.map(lambda row: _encoded(data, row), block), strict=True):
                label = int(data.labels[row])
                writer.write(example(image, label, data.class_names[label], names[row]))


def _encoded(data: ImageData, row: int) -> bytes:
    if data.in_memory_pixels:
        return tf.io.encode_png(data.images[row].astype(np.uint8)).numpy()
    try:
        return data.encoded(row)
    except OSError as error:
        raise DataError(f"{data.names[row]} cannot be read: {error.strerror}; mend it, then {_GOES_ON}") from error


def _described(out: Path, plan: _Plan, found: list[tuple[Shard, list[int]]]) -> Manifest:
    """Index and manifest, written in this order."""
    rows = [(plan.splits.given[split], plan.names[split], part) for split, part in plan.shards.values()]
    sizes = np.concatenate([np.array(sizes, np.int64) for _, sizes in found])
    labels = np.concatenate([data.labels[part] for data, _, part in rows])
    order = np.concatenate([part for *_, part in rows])
    names = [os.fsencode(names[row]) for _, names, part in rows for row in part]
    write_whole(out / INDEX, lambda path: write_index(path, sizes, labels, order, names))
    shards = tuple(shard for shard, _ in found)
    manifest = Manifest(plan.source, tuple(plan.splits.train.class_names), shards, sha256(out / INDEX))
    write_whole(out / MANIFEST, lambda path: path.write_text(manifest.text(), encoding="utf-8"))
    return manifest
