"""Export a classifier, after proving that its predictions are those of the Result."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recipes.core.files import check_utf8, unwritable
from recipes.core.locks import ProcessLock
from recipes.data.sources import unlabelled
from recipes.errors import OutputError
from recipes.export import formats, model_card
from recipes.export import other_process as tensorflow_writer
from recipes.export.options import BY_TENSORFLOW, ExportOptions
from recipes.export.proof import crops_of, prove
from recipes.export.proof_images import proof_images
from recipes.export.saved_model import ServedModel
from recipes.runs.record import Record

logger = logging.getLogger(__name__)


def export(result: Record, directory: str | os.PathLike, options: ExportOptions, proof: object = None) -> Path:
    """Write a version of the classifier that does not need `recipes`, and return its folder.

    A fresh process loads the export and predicts the proof's images. Every class must equal the Result's, and every
    probability must agree within 1e-4. For quantized weights, 90 % of the classes must be equal. The folder appears
    only after a successful proof, with its figures.

    The SavedModel signature `serving_default` takes image_bytes, a string vector. It returns probabilities (batch,
    classes), class_names (classes,), class_name (batch,), top_names and top_probabilities (batch, top_k), and error
    (batch,). An image's error is empty if it was classified. A damaged image has NaN probabilities and an error with
    the cause, and does not affect other images. `rows` is the same without class_names, `pixels` takes uint8 (batch,
    height, width, 3), and `features` returns the input of the linear classifier.

    Args:
        result: The classifier.
        directory: "serving" creates its next free version, such as serving/1, in the layout of TensorFlow Serving;
            "serving/7" creates that version.
        options: The format, and what is fixed at the export.
        proof: Images for the proof, in any form that `finetune` takes; None: the validation images, if their files
            still exist.

    Raises:
        OutputError: If the folder cannot be written.
        RecipesError: If an option is wrong, or the format cannot represent the classifier.
        ProofError: If the proof fails; no files are left behind.
    """
    options = options.checked(result)
    if options.format in BY_TENSORFLOW:
        check_utf8(Path(directory).expanduser())
    images = proof_images(result.held_out, result.class_names, proof)
    with _version(directory) as (staged, final):
        path = staged / formats.FILES.get(options.format, "")
        in_this_process = keras.backend.backend() == "tensorflow" or options.format not in BY_TENSORFLOW
        int8_activations = options.format == "litert" and options.quantize == "int8"
        calibration = crops_of(result, unlabelled(images.contents)) if int8_activations else None
        (write if in_this_process else tensorflow_writer.write)(result, options, path, calibration)
        found = prove(result, options, path, images)
        model_card.write(staged, result, model_card.describe(result, options, found))
    logger.info(found)
    return final


def write(result: Record, options: ExportOptions, path: Path, calibration: np.ndarray | None) -> None:
    """Write an export without a proof; the options must be checked already.

    Args:
        result: The classifier.
        options: The format, and the settings that the export fixes.
        path: The SavedModel's folder, or the file.
        calibration: float32 (n, size, size, 3), images that scale the int8 activations of LiteRT; otherwise None.

    Raises:
        RecipesError: If the format cannot represent the classifier.
        OSError: If `path` cannot be written.
    """
    if options.format != "saved_model":
        return formats.write(result, options.format, path, options.quantize, calibration)
    served = ServedModel(result, options)
    try:
        tf.saved_model.save(served, path, signatures=served.signatures())
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


@contextmanager
def _version(directory: str | os.PathLike) -> Iterator[tuple[Path, Path]]:
    """Yield a hidden folder to write to, and the version's folder that it becomes; remove it after a failure.

    Raises:
        OutputError: If the version exists, or `directory` holds anything but versions or cannot be written.
    """
    final = Path(os.path.abspath(Path(directory).expanduser()))
    if not final.name.isdecimal():
        final = final / str(_next_version(final))
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        other = final.with_name(str(_next_version(final.parent)))
        raise OutputError(
            f"{final} exists and is not empty; choose another version, such as {other}",
            code="output.exists",
            path=final,
            free=other,
        )
    missing = [folder for folder in final.parents if not folder.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final.parent)
        prefix = f".new-{final.name}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=final.parent, ignore_cleanup_errors=True) as name:
            staged = Path(name)
            staged.chmod(0o755)
            lock = _staging_lock(staged)
            try:
                lock.acquire()
                yield staged, final
                os.replace(staged, final)
            finally:
                lock.release(delete=True)
    except OSError as error:
        raise unwritable(final, error) from error
    finally:
        if not final.exists():
            for folder in missing:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


def _sweep(directory: Path) -> None:
    """Remove the folders of killed exports: folders with content that no running process has locked."""
    for left in directory.glob(".new-*"):
        if left.is_symlink() or not left.is_dir() or not any(left.iterdir()):
            continue
        lock = _staging_lock(left)
        with suppress(OutputError):  # another user's folder cannot be removed
            if lock.acquire():
                shutil.rmtree(left, ignore_errors=True)
                lock.release(delete=True)


def _staging_lock(staged: Path) -> ProcessLock:
    """Return a hidden folder's lock: a file beside the folder, because the version gets all files inside."""
    return ProcessLock(staged.with_name(f"{staged.name}.lock"))


def _next_version(directory: Path) -> int:
    if not directory.exists():
        return 1
    if not directory.is_dir():
        raise OutputError(
            f"{directory} is a file; expected a folder. Choose another name", code="output.file", path=directory
        )
    names = [entry.name for entry in directory.iterdir() if not entry.name.startswith(".")]
    strange = [name for name in names if not name.isdecimal()]
    if strange:
        raise OutputError(
            f"{directory} exists and is not empty: it holds {strange[0]!r}, which is not a version; choose another "
            f"folder, such as {directory}-2",
            code="output.not_versions",
            path=directory,
        )
    return max(map(int, names), default=0) + 1
