"""A SavedModel in memory, asked in batches of whatever waits."""

import asyncio
import hashlib
import json
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from recipes.errors import OutputError
from recipes.model_card import FOLDER, METADATA


class Overloaded(Exception):
    """The queue is full."""

    status = 503


@dataclass(frozen=True)
class _Item:
    signature: str
    content: bytes
    answer: Future


@dataclass(eq=False)
class LoadedModel:
    """Signatures of an export, with a thread that answers.

    Each batch is all that waits when the one before is done, up to a bound: an image that comes alone waits for
    nothing, and under load the batches grow by themselves.
    """

    signatures: dict
    metadata: dict
    name: str
    version: str
    _batch: int = 32
    _waiting: queue.Queue | None = field(default=None, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def class_names(self) -> list[str]:
        return self.metadata["class_names"]

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}: {len(self.class_names)} classes"

    def describe(self) -> dict:
        """Names, types and shapes of every signature's inputs and outputs."""

        def spec(tensors):
            return {name: {"dtype": t.dtype.name, "shape": list(t.shape)} for name, t in tensors.items()}

        return {
            name: {"inputs": spec(call.structured_input_signature[1]), "outputs": spec(call.structured_outputs)}
            for name, call in self.signatures.items()
        }

    def warm(self) -> None:
        """Answer one image, so that the first who asks does not wait for the graph to be optimised."""
        self.signatures["rows"](image_bytes=tf.io.encode_png(tf.zeros((8, 8, 3), tf.uint8))[None])

    def start(self, batch: int, waiting: int) -> None:
        self._batch, self._waiting = batch, queue.Queue(waiting)
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """After everything that waits has been answered."""
        self._waiting.put(None)
        self._thread.join()

    async def ask(self, signature: str, contents: list[bytes]) -> list[dict]:
        """One row of outputs per image.

        Raises: Overloaded when the queue has no room for all of them.
        """
        if self._waiting.qsize() + len(contents) > self._waiting.maxsize:
            raise Overloaded(f"{self._waiting.qsize()} images are waiting; try again")
        items = [_Item(signature, content, Future()) for content in contents]
        for item in items:
            self._waiting.put_nowait(item)  # all asking is done in the event loop's thread: the room is still there
        return await asyncio.gather(*(asyncio.wrap_future(item.answer) for item in items))

    async def ask_pixels(self, pixels: np.ndarray) -> list[dict]:
        """One row of outputs per image of one size."""
        found = await asyncio.to_thread(self.signatures["pixels"], pixels=tf.constant(pixels))
        return _rows(found, len(pixels))

    def _work(self) -> None:
        item = self._waiting.get()
        while item is not None:
            batch = [item]
            item = self._next(block=False)
            while item not in (None, _NOTHING) and len(batch) < self._batch and item.signature == batch[0].signature:
                batch.append(item)
                item = self._next(block=False)
            self._answer(batch)
            if item is _NOTHING:
                item = self._next(block=True)

    def _next(self, *, block: bool):
        try:
            return self._waiting.get(block)
        except queue.Empty:
            return _NOTHING

    def _answer(self, batch: list[_Item]) -> None:
        # serving_default adds the class names, which are no rows.
        signature = "rows" if batch[0].signature == "serving_default" else batch[0].signature
        try:
            found = self.signatures[signature](image_bytes=tf.constant([item.content for item in batch]))
            rows = _rows(found, len(batch))
        except Exception as error:  # whatever it is, those who wait are told
            rows = [error] * len(batch)
        for item, row in zip(batch, rows, strict=True):
            if item.answer.cancelled():
                continue
            if isinstance(row, Exception):
                item.answer.set_exception(row)
            else:
                item.answer.set_result(row)


_NOTHING = object()


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
    versions = sorted((p for p in path.glob("*") if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))
    version = path if (path / "saved_model.pb").is_file() or not versions else versions[-1]
    told = version / FOLDER / METADATA
    if not (version / "saved_model.pb").is_file() or not told.is_file():
        raise OutputError(f"{version} is no SavedModel of recipes; give the folder that `recipes export` wrote")
    metadata = json.loads(told.read_text(encoding="utf-8"))
    for name, checksum in metadata["files_sha256"].items():
        file = version / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
            raise OutputError(f"{file} is missing or not what was proved at the export; export again")
    loaded = tf.saved_model.load(str(version))
    base = version.parent if version.name.isdecimal() else version
    number = version.name if version.name.isdecimal() else "1"
    model = LoadedModel(dict(loaded.signatures), metadata, base.name, number)
    model._loaded = loaded  # its variables live as long as it does
    return model


def first_frame(content: bytes) -> bytes:
    """A GIF up to its first picture, all other bytes as they are: TensorFlow decodes every frame to show the first, and
    a hundred kilobytes can hold gigabytes of them."""
    if content[:4] != b"GIF8" or len(content) < 13:
        return content

    def after_blocks(at: int) -> int:
        while at < len(content) and content[at]:
            at += 1 + content[at]
        return at + 1

    at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    while at < len(content) and content[at] == 0x21:
        at = after_blocks(at + 2)
    if at + 9 >= len(content) or content[at] != 0x2C:
        return content[:at]
    at += 10 + (3 << (content[at + 9] & 7) + 1 if content[at + 9] & 0x80 else 0)
    return content[: after_blocks(at + 1)] + b"\x3b"
