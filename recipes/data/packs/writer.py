"""Write a dataset into a few large files: TFRecord shards, an index that locates each image, and a manifest."""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import tensorflow as tf

from recipes.core.files import check_writable, write_whole
from recipes.core.locks import ProcessLock
from recipes.core.output import safe_output
from recipes.core.progress import phase
from recipes.data.images import ImageData, Splits
from recipes.data.packs.contents import sizes_and_key
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
from recipes.data.packs.records import example, framed, parsed
from recipes.data.sources import load
from recipes.data.tables.splits import check_may_be_split
from recipes.errors import DataError, OutputError

logger = logging.getLogger(__name__)
SHARD_BYTES = 2**28  # default bytes of images in one file
_OVERHEAD = 256  # bytes that a record may need in addition to image and names
_MOST = 99_999
_LOCK = ".lock"
_BLOCK = 64  # images that are read at the same time
_RESUME = "run the same command again to resume"


@dataclass(frozen=True, eq=False)
class _Plan:
    """The contents of a pack before it is written.

    Attributes:
        splits: The dataset.
        names: For each split, the name of each image in the pack.
        shards: For each file name, the split and the positions of its images in that split.
        source: Digest of the dataset and the number of shards.
        bytes: Upper bound of the size of all shards.
    """

    splits: Splits
    names: dict[str, list[str]]
    shards: dict[str, tuple[str, np.ndarray]]
    source: str
    bytes: int


@safe_output()
def pack(dataset: object, out: str | os.PathLike, *, shards: int | None = None) -> Manifest:
    """Write the images of a dataset into a few large files, for file systems that are slow with many small files.

    Every function that takes a dataset, such as `recipes.finetune(out)`, also takes the folder `out`. The pack has the
    same images in the same order, the same splits and class names, and unchanged encoded bytes. Therefore the same seed
    trains the same weights. Images are read one by one, by their byte offsets.

    Args:
        dataset: Any dataset that `finetune` takes.
        out: A new or empty folder. It receives the shards `train-00000-of-00008.tfrecord` and so on, index.npz, and
            finally pack.json with the SHA-256 of all these files. A record is a tf.train.Example with the features
            image, label, class, name and blake2b. Records are ordered by a hash of their names, so each shard is a
            random sample. An interrupted pack of the same images is resumed; the manifest of a finished one is
            returned.
        shards: Number of files for the training images. Validation and test images get a proportional number, at least
            one. By default, each file holds about 256 MiB.

    Raises:
        DataError: If the dataset cannot be read, an image cannot be read or is not uint8, or a table has groups but no
            validation images.
        OutputError: If the folder cannot be written, its disk is full, or the folder holds other files.

    Example:
        >>> recipes.pack("photos/", "packed/", shards=16)
        >>> recipes.finetune("packed/")
    """
    out, splits = Path(out).expanduser(), load(dataset)
    if splits.validation is None:
        check_may_be_split(splits.table)  # a pack does not store groups
    _check_outside(out, dataset)
    for note in splits.notes:
        logger.info(note)
    plan = _planned(splits, _root(dataset), shards)
    if (out / MANIFEST).is_file():
        return _finished(out, plan)
    check_writable(out)
    with _taken(out, plan):
        missing = [name for name in plan.shards if not (out / name).is_file()]
        _check_space(out, plan.bytes * len(missing) // len(plan.shards))
        written = len(plan.shards) - len(missing)
        if written:
            logger.info(f"resuming the pack in {out}: {written} of {len(plan.shards)} shards are written")
        try:
            found = []
            with phase("packing", len(plan.shards), "files") as progress:
                for name in plan.shards:
                    found.append(_shard(out / name, plan, name))
                    progress.advance()
            return _described(out, plan, found)
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise OutputError(
                f"{out} cannot be written: {reason}; free some space, then {_RESUME}", code="pack.unwritable", path=out
            ) from error


def _check_space(out: Path, needed: int) -> None:
    """Raise OutputError unless `needed` bytes are free."""
    free = shutil.disk_usage(out).free
    if needed > free:
        raise OutputError(
            f"{out} has {free:,} bytes free, but up to {needed:,} must be written; free some space, or choose "
            "another folder",
            code="pack.disk_full", path=out, free=free, needed=needed,
        )  # fmt: skip


def _root(dataset: object) -> Path | None:
    """Return the folder to which the file names in the pack are relative; None for images without paths."""
    if not isinstance(dataset, str | os.PathLike):
        return None
    path = Path(dataset).expanduser()
    return path if path.is_dir() else path.parent


def _check_outside(out: Path, dataset: object) -> None:
    """Raise OutputError for a folder inside the dataset, where the pack would be read as a class."""
    inside = isinstance(dataset, str | os.PathLike) and Path(dataset).expanduser().resolve() in out.resolve().parents
    if inside:
        raise OutputError(
            f"{out} lies within {dataset} and would become a part of that dataset; choose a folder beside it",
            code="pack.inside_dataset", path=out, dataset=dataset,
        )  # fmt: skip


def _planned(splits: Splits, root: Path | None, shards: int | None) -> _Plan:
    measured = {split: sizes_and_key(data) for split, data in splits.given.items()}
    most_shards = min(_MOST, len(splits.train))
    if shards is None:
        shards = min(most_shards, math.ceil(measured["train"][0].sum() / SHARD_BYTES) or 1)
    if isinstance(shards, bool) or not isinstance(shards, int | np.integer) or not 1 <= shards <= most_shards:
        raise DataError(
            f"`shards` must be a number of files from 1 to {most_shards:,}, got {shards!r}; every shard holds at least "
            "one training image",
            code="pack.shards", value=shards,
        )  # fmt: skip
    source = hashlib.blake2b(repr((splits.train.class_names, int(shards))).encode("utf-8", "surrogateescape"))
    names, files, most = {}, {}, 0
    for split, data in splits.given.items():
        names[split] = [_relative(name, root) for name in data.names]
        count = max(1, min(len(data), round(int(shards) * len(data) / len(splits.train))))
        hashes = [hashlib.blake2b(os.fsencode(name), digest_size=8).digest() for name in names[split]]
        hashed = sorted(range(len(data)), key=hashes.__getitem__)
        for k, part in enumerate(np.array_split(np.array(hashed, int), count)):
            files[f"{split}-{k:05}-of-{count:05}.tfrecord"] = split, part
        sizes, key = measured[split]
        most += int(sizes.sum()) + sum(_OVERHEAD + 4 * len(name) for name in names[split])
        source.update(repr((split, names[split])).encode("utf-8", "surrogateescape"))
        source.update(key)
        source.update(data.labels.tobytes())
    return _Plan(splits, names, files, source.hexdigest()[:32], most)


def _relative(name: str, root: Path | None) -> str:
    """Return the name of an image relative to the folder that it was packed from."""
    if root is not None and Path(name).is_relative_to(root):
        return Path(name).relative_to(root).as_posix()
    return name


def _finished(out: Path, plan: _Plan) -> Manifest:
    manifest = read_manifest(out)
    if manifest.source != plan.source:
        raise OutputError(
            f"{out} holds a pack of other images or with another number of shards; choose another folder, or "
            "delete this one",
            code="pack.other_pack", path=out,
        )  # fmt: skip
    (out / UNFINISHED).unlink(missing_ok=True)  # remains of a process that was stopped after its last write
    logger.info(f"{out} already holds this pack, so nothing is written; delete the folder to write it again")
    return manifest


@contextmanager
def _taken(out: Path, plan: _Plan) -> Iterator[None]:
    """Lock the folder for this process after checking that an unfinished pack in it belongs to `plan`.

    Raises:
        OutputError: If the folder holds other files, or another process writes to it.
    """
    present = {p.name for p in out.iterdir()} - {_LOCK}
    strange = sorted(name for name in present if not _ours(name.removeprefix(".new-")))
    mark, source = out / UNFINISHED, json.dumps({"source": plan.source})
    if strange or (present and not mark.exists()):
        raise OutputError(
            f"{out} holds other files ({', '.join(strange[:3]) or 'shards'}); choose an empty folder",
            code="pack.not_empty", path=out, names=tuple(strange),
        )  # fmt: skip
    lock = ProcessLock(out / _LOCK)
    if not lock.acquire():
        raise OutputError(
            f"{out} is being written by another `recipes pack`; wait until that process ends",
            code="output.locked",
            path=out,
        )
    try:
        before = mark.read_text(encoding="utf-8") if mark.exists() else ""
        if before not in ("", source):
            what = "holds an unfinished pack of other images or with another number of shards"
            raise OutputError(
                f"{out} {what}; delete it, or choose another folder", code="pack.other_beginning", path=out
            )
        if not before:
            mark.write_text(source, encoding="utf-8")
        yield
        mark.unlink(missing_ok=True)
    finally:
        lock.release(delete=not mark.exists())


def _ours(name: str) -> bool:
    return name in (UNFINISHED, INDEX, MANIFEST) or SHARD_NAME.fullmatch(name) is not None


def _shard(path: Path, plan: _Plan, name: str) -> tuple[Shard, list[int]]:
    """Write a shard unless it exists, verify it, and return it with the number of bytes of each record."""
    split, rows = plan.shards[name]
    data, names = plan.splits.given[split], plan.names[split]
    if not path.is_file():
        write_whole(path, lambda temporary: _write(temporary, data, names, rows))
    sizes, found, altered = [], [], f"{path} was altered after it was written; delete this file, then {_RESUME}"
    with open(path, "rb") as file:
        for record in framed(file, str(path)):
            try:
                _, own_name, label = parsed(record)
            except ValueError as error:
                raise DataError(f"{altered} ({error})", code="pack.altered", path=path) from error
            found.append((own_name, label))
            sizes.append(len(record))
    if found != [(os.fsencode(names[row]), data.labels[row]) for row in rows]:
        raise DataError(altered, code="pack.altered", path=path)
    return Shard(name, split, len(rows), path.stat().st_size, sha256(path)), sizes


def _write(path: Path, data: ImageData, names: list[str], rows: np.ndarray) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer, ThreadPoolExecutor(8) as pool:
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            for row, image in zip(block, pool.map(lambda row: _encoded(data, row), block), strict=True):
                label = int(data.labels[row])
                writer.write(example(image, label, data.class_names[label], names[row]))


def _encoded(data: ImageData, row: int) -> bytes:
    if data.pixels is not None:
        return cast(bytes, tf.io.encode_png(data.pixels[row].astype(np.uint8)).numpy())  # the stubs only declare arrays
    try:
        return data.encoded(row)
    except OSError as error:
        raise DataError(
            f"{data.names[row]} cannot be read: {error.strerror}; repair this file, then {_RESUME}",
            code="pack.unreadable_images", images=(data.names[row],),
        ) from error  # fmt: skip


def _described(out: Path, plan: _Plan, found: list[tuple[Shard, list[int]]]) -> Manifest:
    """Write the index, then the manifest."""
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
