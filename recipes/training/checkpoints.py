"""The last good states of a training: the newest in memory, two generations on disk."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recipes.core.archives import load_arrays
from recipes.core.files import write_whole
from recipes.errors import UnsafeFileError

logger = logging.getLogger(__name__)

SHARE = 1 / 50  # of the time that keeping states may take
EVERY = 0.5  # seconds between two states at least


class Checkpoints:
    """The states of one training. A state is a tree of dicts, lists, numbers, texts and arrays.

    path: of the newest state, an .npz file without pickles whose members carry checksums; the one before it lies beside
          it. None: the newest is held in memory alone.
    tick: called after each state that was kept.
    """

    def __init__(self, path: Path | None = None, tick: Callable[[], None] = lambda: None):
        self.path, self.tick, self.full = path, tick, False
        self.newest: dict | None = None
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether keeping a state again would take less than `SHARE` of the time since the last one."""
        return time.monotonic() >= self._next

    def keep(self, state: Callable[[], dict], *, on_disk: bool = True) -> None:
        """Remember what `state` gathers, on disk too; where that is full, training goes on, and it is told once."""
        began = time.monotonic()
        self.newest = state()
        if on_disk and self.path is not None:
            try:
                arrays = packed(self.newest)
                write_whole(self.path, lambda path: _save(path, arrays), self._older)
                self.full = False
            except OSError as error:
                if not self.full:
                    logger.warning(
                        f"{self.path} cannot be written ({error.strerror or error}): the training goes on, and it is "
                        "tried again; until then a stopped run goes back to the state kept before"
                    )
                self.full = True
        self.tick()
        now = time.monotonic()
        self._next = now + max(EVERY, (now - began) / SHARE)

    def load(self) -> dict | None:
        """The newest state that is whole; None where none was kept."""
        if self.path is None:
            return None
        for path, instead in ((self.path, "the state before it is used"), (self._older, "the training begins anew")):
            if not path.exists():
                continue
            try:
                self.newest = unpacked(load_arrays(path))
                return self.newest
            except (UnsafeFileError, KeyError, ValueError) as error:
                logger.warning(f"{path} cannot be used, {instead}: {error}")
        return None

    @property
    def _older(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.before.npz")


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def packed(tree) -> dict[str, np.ndarray]:
    """A tree as named arrays: its own, and the rest as JSON in "tree"."""
    arrays = {}

    def lean(node):
        if isinstance(node, np.ndarray):
            name = f"array{len(arrays)}"
            arrays[name] = node
            return {"array": name}
        if isinstance(node, dict):
            return {key: lean(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [lean(value) for value in node]
        return node.item() if isinstance(node, np.generic) else node

    text = json.dumps(lean(tree))
    return {**arrays, "tree": np.frombuffer(text.encode(), np.uint8)}


def unpacked(arrays: dict[str, np.ndarray]):
    """The tree that `packed` took apart, tuples as lists."""

    def whole(node):
        if isinstance(node, dict):
            return arrays[node["array"]] if set(node) == {"array"} else {k: whole(v) for k, v in node.items()}
        return [whole(value) for value in node] if isinstance(node, list) else node

    return whole(json.loads(arrays["tree"].tobytes()))
