"""Cache features on disk, so that a second probe of the same images by the same network skips the network."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recipes.planning.constructor_text import constructor_text

LIMIT = 4 * 2**30  # largest size of the cache in bytes; the least recently used features are deleted first
_FORMAT = 1


def folder() -> Path:
    """Return the folder $RECIPES_CACHE, or by default keras-recipes in $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("RECIPES_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "keras-recipes").expanduser()


def key(model: keras.Model, fingerprints: Sequence[str], *options: object) -> str:
    """Return a digest of all inputs on which features depend.

    Args:
        model: The network, whose architecture and weights count.
        fingerprints: Digests of the images' contents, in order.
        *options: Settings of the cropping of images.
    """
    digest = hashlib.blake2b(digest_size=16)
    backend = keras.backend.backend()
    parts = (
        _FORMAT,
        backend,
        keras.__version__,
        tf.__version__,
        keras.config.dtype_policy().name,
        *options,
        *fingerprints,
    )
    digest.update(constructor_text(parts).encode("utf-8", "surrogateescape"))
    for layer in model._flatten_layers():
        digest.update(repr((type(layer).__name__, _settings(layer))).encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def _settings(layer: keras.layers.Layer) -> dict[str, object]:
    return {k: v for k, v in vars(layer).items() if isinstance(v, str | int | float | tuple) and k[0] != "_"
            and k != "name"}  # fmt: skip


def cached(name: str, compute: Callable[[], list[np.ndarray]]) -> tuple[list[np.ndarray], str]:
    """Return arrays from the cache, or compute and save them.

    Args:
        name: Name of the arrays in the cache, see `key`.
        compute: Function that computes the arrays.

    Returns:
        The arrays, and a text that names their source or the file in which they are saved.
    """
    path = folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = [saved[f"arr_{i}"] for i in range(len(saved.files))]
        os.utime(path)
        return arrays, f"features from {path}"
    except (FileNotFoundError, NotADirectoryError):
        note = ""
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        note = f"; {path} was damaged ({error}), so the features are computed again"
    arrays = compute()
    return arrays, _save(path, arrays) + note


def _save(path: Path, arrays: Sequence[np.ndarray]) -> str:
    """Save the arrays if there is enough space, and return a text that reports the result."""
    size = sum(array.nbytes for array in arrays)
    if size > LIMIT // 2:
        return f"features not saved: {size:,} bytes are more than {LIMIT // 2:,}"
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        others = sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime)
        held = sum(p.stat().st_size for p in others)
        while others and held + size > LIMIT:
            held -= others[0].stat().st_size
            others.pop(0).unlink()
        if shutil.disk_usage(path.parent).free < 2 * size:
            return f"features not saved: {path.parent} has too little space"
        with open(temporary, "wb") as file:
            np.savez(file, *arrays)
        os.replace(temporary, path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        return f"features not saved: {error.strerror}: {path.parent} (set RECIPES_CACHE to another folder)"
    return f"features saved in {path}"
