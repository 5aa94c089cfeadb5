"""Features on disk, so that a second probe of the same images by the same network is free."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

LIMIT = 4 * 2**30  # bytes of all features together; those used longest ago give way
_FORMAT = 1


def folder() -> Path:
    """$RECIPES_CACHE, else keras-recipes in $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("RECIPES_CACHE")
    return Path(given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "keras-recipes").expanduser()


def key(model: keras.Model, fingerprints: Sequence[str], *how) -> str:
    """Of everything that features depend on: architecture and weights, the images' contents in their order, `how` they
    are cut, and the libraries' versions."""
    digest = hashlib.blake2b(digest_size=16)
    backend = keras.backend.backend()
    parts = (_FORMAT, backend, keras.__version__, tf.__version__, keras.config.dtype_policy().name, *how, *fingerprints)
    digest.update(repr(parts).encode("utf-8", "surrogateescape"))
    for layer in model._flatten_layers():
        digest.update(repr((type(layer).__name__, _settings(layer))).encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()


def _settings(layer) -> dict:
    return {k: v for k, v in vars(layer).items() if isinstance(v, str | int | float | tuple) and k[0] != "_"
            and k != "name"}  # fmt: skip


def remembered(name: str, compute: Callable[[], list[np.ndarray]]) -> tuple[list[np.ndarray], str]:
    """The arrays that were kept under `name`, or those that `compute` makes, and in words where they come from."""
    path = folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = [kept[f"arr_{i}"] for i in range(len(kept.files))]
        os.utime(path)
        return arrays, f"features from {path}"
    except (FileNotFoundError, NotADirectoryError):
        said = ""
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        said = f"; {path} was damaged ({error}) and is made anew"
    arrays = compute()
    return arrays, _keep(path, arrays) + said


def _keep(path: Path, arrays) -> str:
    size = sum(array.nbytes for array in arrays)
    if size > LIMIT // 2:
        return f"features not kept: {size:,} bytes are more than {LIMIT // 2:,}"
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        others = sorted(path.parent.glob("*.npz"), key=lambda p: p.stat().st_mtime)
        held = sum(p.stat().st_size for p in others)
        while others and held + size > LIMIT:
            held -= others[0].stat().st_size
            others.pop(0).unlink()
        if shutil.disk_usage(path.parent).free < 2 * size:
            return f"features not kept: {path.parent} has too little space"
        with open(temporary, "wb") as file:
            np.savez(file, *arrays)
        os.replace(temporary, path)
    except OSError as error:
        if temporary.is_file():
            temporary.unlink()
        return f"features not kept: {error.strerror}: {path.parent} (RECIPES_CACHE names another folder)"
    return f"features kept in {path}"
