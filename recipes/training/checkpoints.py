"""Keep the last good states of a training: the newest in memory, two generations on disk."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recipes.core.archives import load_arrays
from recipes.core.files import write_whole
from recipes.errors import UnsafeFileError

logger = logging.getLogger(__name__)

SHARE = 1 / 50  # maximum share of the training time that saving states may take
EVERY = 0.5  # minimum number of seconds between two states


class Checkpoints:
    """Save and load the states of one training; a state is a tree of dicts, lists, numbers, strings and arrays.

    Args:
        path: File of the newest state: an .npz file without pickles, with checksums. The previous state is saved beside
            it. None keeps the newest state in memory only.
        tick: Function that is called after each state.

    Attributes:
        newest: The newest state; None before the first one.
        full: Whether the last state could not be written.
    """

    def __init__(self, path: Path | None = None, tick: Callable[[], None] = lambda: None) -> None:
        self.path, self.tick, self.full = path, tick, False
        self.newest: dict[str, Any] | None = None
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Return whether saving a state now would take less than `SHARE` of the time since the last save."""
        return time.monotonic() >= self._next

    def keep(self, state: Callable[[], dict[str, Any]], *, on_disk: bool = True) -> None:
        """Save the state that `state` returns; if the disk is full, warn once and keep it in memory.

        Args:
            state: Function that returns the state. Its duration counts towards `due`.
            on_disk: Whether to also write the state to disk.
        """
        began = time.monotonic()
        self.newest = state()
        if on_disk and self.path is not None:
            try:
                arrays = packed(self.newest)
                write_whole(self.path, lambda path: _save(path, arrays), _previous(self.path))
                self.full = False
            except OSError as error:
                if not self.full:
                    logger.warning(
                        f"{self.path} cannot be written ({error.strerror or error}). Training continues and tries "
                        f"again at the next state; until then, a stopped run would resume from an earlier state. "
                        f"Free some space on this disk."
                    )
                self.full = True
        self.tick()
        now = time.monotonic()
        self._next = now + max(EVERY, (now - began) / SHARE)

    def load(self) -> dict[str, Any] | None:
        """Return the newest undamaged state on disk; None if there is none."""
        if self.path is None:
            return None
        fallbacks = ((self.path, "the previous state is used"), (_previous(self.path), "training starts again"))
        for path, fallback in fallbacks:
            if not path.exists():
                continue
            try:
                self.newest = unpacked(load_arrays(path))
                return self.newest
            except (UnsafeFileError, KeyError, ValueError) as error:
                logger.warning(f"{path} cannot be used ({error}); {fallback}.")
        return None


def _previous(path: Path) -> Path:
    """Return the file of the state before the one in `path`."""
    return path.with_name(f"{path.stem}.before.npz")


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]  no array has this name


def packed(tree: Any) -> dict[str, np.ndarray]:
    """Return a tree as named arrays: its own arrays, and the rest as JSON in "tree"."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_without_arrays(tree, arrays))
    return {**arrays, "tree": np.frombuffer(text.encode(), np.uint8)}


def _without_arrays(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Move the arrays of a tree to `arrays` and return JSON values with references to them."""
    if isinstance(node, np.ndarray):
        name = f"array{len(arrays)}"
        arrays[name] = node
        return {"array": name}
    if isinstance(node, dict):
        return {key: _without_arrays(value, arrays) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_without_arrays(value, arrays) for value in node]
    return node.item() if isinstance(node, np.generic) else node


def unpacked(arrays: dict[str, np.ndarray]) -> Any:
    """Return the tree from the arrays that `packed` returned, with tuples as lists."""
    return _with_arrays(json.loads(arrays["tree"].tobytes()), arrays)


def _with_arrays(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"array"}:
            return arrays[node["array"]]
        return {key: _with_arrays(value, arrays) for key, value in node.items()}
    return [_with_arrays(value, arrays) for value in node] if isinstance(node, list) else node
