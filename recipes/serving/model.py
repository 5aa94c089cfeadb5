"""A SavedModel in memory, asked in batches of whatever waits."""

import asyncio
import hashlib
import json
import queue
import struct
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from recipes.core.files import check_utf8
from recipes.data.header_ops import MAX_PIXELS
from recipes.errors import OutputError
from recipes.export.model_card import FOLDER, METADATA

_DT = {"float32": "DT_FLOAT"}  # the others are called as NumPy calls them


class Overloaded(Exception):
    """The queue is full."""

    status = 503


@dataclass(frozen=True)
class _Item:
    """What one answer is asked for: the bytes of an image, or an array of images of one size."""

    signature: str
    content: bytes | np.ndarray
    answer: Future


@dataclass(eq=False)
class LoadedModel:
    """Signatures of an export, with threads that answer.

    Each batch is all that waits when a thread is free, up to a bound: an image that comes alone waits for nothing, and
    under load the batches grow by themselves. Several threads, because much of a batch is done by one core alone.
    """

    signatures: dict
    metadata: dict
    name: str
    version: str
    _batch: int = 1
    _waiting: queue.Queue | None = field(default=None, repr=False)
    _threads: list[threading.Thread] = field(default_factory=list, repr=False)

    @property
    def class_names(self) -> list[str]:
        return self.metadata["class_names"]

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}: {len(self.class_names)} classes"

    def describe(self) -> dict:
        """Inputs and outputs of every signature, as TensorFlow Serving tells them."""

        def told(tensors):
            return {
                name: {"name": f"{name}:0", "dtype": _DT.get(t.dtype.name, f"DT_{t.dtype.name.upper()}"),
                       "tensor_shape": {"dim": [{"size": str(n or -1), "name": ""} for n in t.shape],
                                        "unknown_rank": False}}
                for name, t in tensors.items()
            }  # fmt: skip

        return {
            name: {"inputs": told(call.structured_input_signature[1]), "outputs": told(call.structured_outputs),
                   "method_name": "tensorflow/serving/predict"}
            for name, call in self.signatures.items()
        }  # fmt: skip

    def warm(self) -> None:
        """Answer one image, so that the first who asks does not wait for the graph to be optimised."""
        self.signatures["rows"](image_bytes=tf.io.encode_png(tf.zeros((8, 8, 3), tf.uint8))[None])

    def start(self, batch: int, waiting: int, workers: int = 1) -> None:
        self._batch, self._waiting = batch, queue.Queue(waiting)
        self._threads = [threading.Thread(target=self._work, name="batches", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """After everything that waits has been answered."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    async def ask(self, signature: str, contents: list) -> list:
        """One row of outputs per encoded image.

        Raises: Overloaded when the queue has no room for all of them.
        """
        if self._waiting.qsize() + len(contents) > self._waiting.maxsize:
            raise Overloaded(f"{self._waiting.qsize()} images are waiting; try again")
        items = [_Item(signature, content, Future()) for content in contents]
        for item in items:
            self._waiting.put_nowait(item)  # all asking is done in the event loop's thread: the room is still there
        return await asyncio.gather(*(asyncio.wrap_future(item.answer) for item in items))

    async def ask_pixels(self, pixels: np.ndarray) -> list[dict]:
        """One row of outputs per image of one size; in the queue they count as one."""
        return (await self.ask("pixels", [pixels]))[0]

    def _work(self) -> None:
        item = self._waiting.get()
        while item is not None:
            batch = [item]
            item = self._next(block=False)
            while item not in (None, _NOTHING) and len(batch) < self._batch and _alike(item, batch[0]):
                batch.append(item)
                item = self._next(block=False)
            self._answer([item for item in batch if item.answer.set_running_or_notify_cancel()])
            if item is _NOTHING:
                item = self._next(block=True)

    def _next(self, *, block: bool):
        try:
            return self._waiting.get(block)
        except queue.Empty:
            return _NOTHING

    def _answer(self, batch: list[_Item]) -> None:
        try:
            answers = self._answers(batch[0].signature, [item.content for item in batch]) if batch else []
        except Exception as error:  # whatever it is, those who wait are told
            for item in batch:
                item.answer.set_exception(error)
        else:
            for item, answer in zip(batch, answers, strict=True):
                item.answer.set_result(answer)

    def _answers(self, signature: str, contents: list) -> list:
        if signature == "pixels":
            return [_rows(self.signatures[signature](pixels=tf.constant(pixels)), len(pixels)) for pixels in contents]
        # serving_default adds the class names, which are no rows.
        name = "rows" if signature == "serving_default" else signature
        return _rows(self.signatures[name](image_bytes=tf.constant(contents)), len(contents))


_NOTHING = object()


def _alike(a: _Item, b: _Item) -> bool:
    """Whether they can share a batch."""
    return a.signature == b.signature != "pixels"


def _rows(found: dict, count: int) -> list[dict]:
    """Outputs by image as JSON values: NaN is null."""
    columns = {name: _plain(tensor.numpy()) for name, tensor in found.items() if name != "class_names"}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def _plain(values: np.ndarray) -> list:
    if values.dtype == object:
        texts = [text.decode("utf-8", "replace") for text in values.ravel()]
        return np.array(texts, object).reshape(values.shape).tolist()
    if np.isnan(values).any():
        values = np.where(np.isnan(values), None, values.astype(object))
    return values.tolist()


def load_model(directory) -> LoadedModel:
    """The newest version in a folder of versions, or the one version that `directory` is.

    Raises: OutputError when there is none, it is in another format, or a file is not what was proved at the export.
    """
    path = Path(directory).expanduser().absolute()
    check_utf8(path)
    versions = sorted((p for p in path.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))
    version = path if (path / "saved_model.pb").is_file() or not versions else versions[-1]
    told = version / FOLDER / METADATA
    if not (version / "saved_model.pb").is_file() or not told.is_file():
        raise OutputError(f"{version} is no SavedModel of recipes; give the folder that `recipes export` wrote")
    try:
        metadata = json.loads(told.read_text(encoding="utf-8"))
        checksums = metadata["files_sha256"].items()
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{told} is damaged: {type(error).__name__}: {error}; export again") from error
    for name, checksum in checksums:
        file = version / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            raise OutputError(f"{file} is missing or not what was proved at the export; export again")
    loaded = tf.saved_model.load(str(version))
    base = version.parent if version.name.isdecimal() else version
    number = version.name if version.name.isdecimal() else "1"
    model = LoadedModel(dict(loaded.signatures), metadata, base.name, number)
    model._loaded = loaded  # its variables live as long as it does
    return model


def bounded(content: bytes) -> bytes:
    """An image file without what makes decoders work for hours on kilobytes; of all other files, the bytes as they are.

    Of a GIF the first picture is left, for earlier exports decode every frame to show one, and none of more than
    50 million pixels. A JPEG ends before its 101st scan: each goes over all pixels, and needs 75 bytes.
    """
    if content[:4] == b"GIF8":
        return _first_frame(content)
    if content[:3] == b"\xff\xd8\xff" and content.count(_SCAN) > _SCANS:
        return _SCAN.join(content.split(_SCAN, _SCANS + 1)[:-1])
    return content


_SCAN, _SCANS = b"\xff\xda", 100  # cameras write one, progressive files about ten


def _first_frame(content: bytes) -> bytes:
    def after_blocks(at: int) -> int:
        while at < len(content) and content[at]:
            at += 1 + content[at]
        return at + 1

    if len(content) < 13:
        return content
    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    while at < len(content) and content[at] == 0x21:
        at = after_blocks(at + 2)
    if at + 9 >= len(content) or content[at] != 0x2C:
        return content[:at]
    width, height = struct.unpack_from("<HH", content, at + 5)
    if width * height > MAX_PIXELS:
        return content[:at]
    at += 10 + (3 << (content[at + 9] & 7) + 1 if content[at + 9] & 0x80 else 0)
    return content[: after_blocks(at + 1)] + b"\x3b"
