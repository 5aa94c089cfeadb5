"""Load a SavedModel and call it with batches of waiting images."""

import asyncio
import hashlib
import json
import os
import queue
import struct
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recipes.core.files import check_utf8
from recipes.data.header_ops import MAX_PIXELS
from recipes.errors import OutputError
from recipes.export.model_card import FOLDER, METADATA

_DT = {"float32": "DT_FLOAT"}  # TensorFlow Serving's names of types that are not "DT_" and NumPy's name


class Overloaded(Exception):
    """Report that the queue is full."""

    status = 503


@dataclass(frozen=True)
class _Item:
    """Hold one input for the model: the bytes of an image, or an array of images of one size."""

    signature: str
    content: bytes | np.ndarray
    answer: Future

    def can_share_a_batch(self, other: "_Item") -> bool:
        return self.signature == other.signature != "pixels"


@dataclass(eq=False)
class LoadedModel:
    """Hold the signatures of an export, and threads that compute predictions.

    When a thread becomes free, its next batch is all waiting images, up to a limit. So a single image does not wait for
    others, and batches grow under load. Several threads are used because one core computes much of a batch.
    """

    signatures: dict[str, Any]  # functions of tensors; TensorFlow has no public type for them
    metadata: dict
    name: str
    version: str
    _saved_model: object = field(default=None, repr=False)  # keeps the variables alive
    _batch: int = 1
    # a None in the queue ends a thread
    _waiting: queue.Queue[_Item | None] = field(default_factory=queue.Queue, repr=False)
    _threads: list[threading.Thread] = field(default_factory=list, repr=False)

    @property
    def class_names(self) -> list[str]:
        return self.metadata["class_names"]

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}: {len(self.class_names)} classes"

    def describe(self) -> dict:
        """Return the inputs and outputs of every signature in TensorFlow Serving's format."""
        return {
            name: {"inputs": _tensor_infos(call.structured_input_signature[1]),
                   "outputs": _tensor_infos(call.structured_outputs), "method_name": "tensorflow/serving/predict"}
            for name, call in self.signatures.items()
        }  # fmt: skip

    def warm(self) -> None:
        """Predict one image, so that the first request does not wait for the graph to be optimised."""
        self.signatures["rows"](image_bytes=tf.io.encode_png(tf.zeros((8, 8, 3), tf.uint8))[None])

    def start(self, batch: int, waiting: int, workers: int = 1) -> None:
        """Start the threads.

        Args:
            batch: Maximum number of images in a batch.
            waiting: Maximum number of images that wait.
            workers: Number of threads.
        """
        self._batch, self._waiting = batch, queue.Queue(waiting)
        self._threads = [threading.Thread(target=self._work, name="batches", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads after answering everything in the queue."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    async def predict(self, signature: str, contents: list[bytes]) -> list[dict]:
        """Return one row of outputs per encoded image.

        Raises:
            Overloaded: If the queue has no room for all images.
        """
        return await self._answers_to([_Item(signature, content, Future()) for content in contents])

    async def predict_pixels(self, pixels: np.ndarray) -> list[dict]:
        """Return one row of outputs per image of one size; the images count as one item in the queue.

        Raises:
            Overloaded: If the queue is full.
        """
        (rows,) = await self._answers_to([_Item("pixels", pixels, Future())])
        return rows

    async def _answers_to(self, items: list[_Item]) -> list:
        if self._waiting.qsize() + len(items) > self._waiting.maxsize:
            raise Overloaded(f"the queue is full ({self._waiting.qsize()} images are waiting); try again later")
        for item in items:
            self._waiting.put_nowait(item)  # only the event loop's thread adds items, so there is still room
        return await asyncio.gather(*(asyncio.wrap_future(item.answer) for item in items))

    def _work(self) -> None:
        following: list[_Item | None] = []  # an item that did not fit into the previous batch
        while (first := following.pop() if following else self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < self._batch and not following:
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if item is not None and item.can_share_a_batch(first):
                    batch.append(item)
                else:
                    following.append(item)
            self._answer([item for item in batch if item.answer.set_running_or_notify_cancel()])

    def _answer(self, batch: list[_Item]) -> None:
        try:
            answers = self._answers(batch[0].signature, [item.content for item in batch]) if batch else []
        except Exception as error:  # every waiting request receives the error
            for item in batch:
                item.answer.set_exception(error)
        else:
            for item, answer in zip(batch, answers, strict=True):
                item.answer.set_result(answer)

    def _answers(self, signature: str, contents: list) -> list:
        if signature == "pixels":
            return [_rows(self.signatures[signature](pixels=tf.constant(pixels)), len(pixels)) for pixels in contents]
        # serving_default adds the class names, which have no row per image.
        name = "rows" if signature == "serving_default" else signature
        return _rows(self.signatures[name](image_bytes=tf.constant(contents)), len(contents))


def _tensor_infos(tensors: dict[str, Any]) -> dict:
    return {
        name: {"name": f"{name}:0", "dtype": _DT.get(t.dtype.name, f"DT_{t.dtype.name.upper()}"),
               "tensor_shape": {"dim": [{"size": str(n or -1), "name": ""} for n in t.shape], "unknown_rank": False}}
        for name, t in tensors.items()
    }  # fmt: skip


def _rows(outputs: dict[str, Any], count: int) -> list[dict]:
    """Return the outputs of each image as JSON values, with null for NaN."""
    columns = {name: _plain(tensor.numpy()) for name, tensor in outputs.items() if name != "class_names"}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def _plain(values: np.ndarray) -> list:
    if values.dtype == object:
        texts = [text.decode("utf-8", "replace") for text in values.ravel()]
        return np.array(texts, object).reshape(values.shape).tolist()
    missing = np.isnan(values)
    if missing.any():
        values = values.astype(object)
        values[missing] = None
    return values.tolist()


def load_model(directory: str | os.PathLike) -> LoadedModel:
    """Load the newest version in a folder of versions, or the version in `directory` itself.

    Raises:
        OutputError: If there is no version, it has another format, or a file has changed since the export's proof.
    """
    path = Path(directory).expanduser().absolute()
    check_utf8(path)
    versions = sorted((p for p in path.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))
    version = path if (path / "saved_model.pb").is_file() or not versions else versions[-1]
    file = version / FOLDER / METADATA
    if not (version / "saved_model.pb").is_file() or not file.is_file():
        raise OutputError(
            f"{version} is not a SavedModel of recipes; give the folder that `recipes export` wrote",
            code="serve.not_an_export",
            path=version,
        )
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        checksums = metadata["files_sha256"].items()
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"{file} is damaged ({type(error).__name__}: {error}); export the run again",
            code="serve.damaged",
            path=file,
        ) from error
    for name, checksum in checksums:
        file = version / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            raise OutputError(
                f"{file} is missing or has changed since the export's proof; export the run again",
                code="serve.changed",
                path=file,
            )
    loaded: Any = tf.saved_model.load(str(version))
    base = version.parent if version.name.isdecimal() else version
    number = version.name if version.name.isdecimal() else "1"
    return LoadedModel(dict(loaded.signatures), metadata, base.name, number, loaded)


_SCAN, _SCANS = b"\xff\xda", 100  # maximum number of JPEG scans; cameras write one, progressive files about ten


def bounded(content: bytes) -> bytes:
    """Return a GIF or JPEG without parts that take decoders hours to process; return other files unchanged.

    A GIF is reduced to its first picture, because earlier exports decode every frame, and to no picture if the first
    one has more than 50 million pixels. A JPEG is cut before its 101st scan, because a scan of 75 bytes can cover all
    pixels.
    """
    if content[:4] == b"GIF8":
        return _first_frame(content)
    if content[:3] == b"\xff\xd8\xff" and content.count(_SCAN) > _SCANS:
        return _SCAN.join(content.split(_SCAN, _SCANS + 1)[:-1])
    return content


def _first_frame(content: bytes) -> bytes:
    if len(content) < 13:
        return content
    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    while at < len(content) and content[at] == 0x21:
        at = _after_blocks(content, at + 2)
    if at + 9 >= len(content) or content[at] != 0x2C:
        return content[:at]
    width, height = struct.unpack_from("<HH", content, at + 5)
    if width * height > MAX_PIXELS:
        return content[:at]
    at += 10 + (3 << (content[at + 9] & 7) + 1 if content[at + 9] & 0x80 else 0)
    return content[: _after_blocks(content, at + 1)] + b"\x3b"


def _after_blocks(content: bytes, at: int) -> int:
    """Return the position after the GIF data blocks that begin at `at`."""
    while at < len(content) and content[at]:
        at += 1 + content[at]
    return at + 1
