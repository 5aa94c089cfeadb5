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

    A fresh process loads the export and predicts the proof's images: every class must be the Result's, every
    probability within 1e-4 (quantized: 90 % of the classes). The folder appears only after that, with the figures.

    SavedModel signatures: `serving_default` takes image_bytes, a string vector, and returns probabilities (batch,
    classes), class_names (classes,), class_name (batch,), top_names and top_probabilities (batch, top_k), and error
    (batch,), empty without one: a damaged image has NaN and its reason, and does not disturb the others. `rows` is the
    same without class_names, `pixels` takes uint8 (batch, height, width, 3), `features` returns the input of the linear
    classifier.

    Args:
        result: The classifier.
        directory: "serving" gets its next free version, serving/1, in the layout of TensorFlow Serving; "serving/7" is
            that version.
        options: The format, and what is fixed at the export.
        proof: Images for the proof, in any form that `finetune` takes; None: the validation images, if their files
            still exist.

    Raises:
        OutputError: The folder cannot be written.
        RecipesError: An option is wrong, or the format cannot represent the classifier.
        ProofError: The proof failed; nothing is left behind.
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
    """Write an export whose options are checked, without a proof.

    Args:
        result: The classifier.
        options: The format, and what is fixed at the export.
        path: The SavedModel's folder, or the file.
        calibration: float32 (n, size, size, 3), images that scale the int8 activations of LiteRT; otherwise None.

    Raises:
        RecipesError: The format cannot represent the classifier.
        OSError: `path` cannot be written.
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
    """Yield a hidden folder to write to, and the version's folder that it becomes; a failure leaves nothing behind.

    Raises:
        OutputError: The version exists, `directory` holds something else than versions, or it cannot be written.
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
    """Remove what killed exports have left: folders with something in them that no living process has locked."""
    for left in directory.glob(".new-*"):
        if left.is_symlink() or not left.is_dir() or not any(left.iterdir()):
            continue
        lock = _staging_lock(left)
        with suppress(OutputError):  # the folder of another user stays
            if lock.acquire():
                shutil.rmtree(left, ignore_errors=True)
                lock.release(delete=True)


def _staging_lock(staged: Path) -> ProcessLock:
    """Return the lock of a hidden folder: a file beside it, since all files in it become files of the version."""
    return ProcessLock(staged.with_name(f"{staged.name}.lock"))


def _next_version(directory: Path) -> int:
    if not directory.exists():
        return 1
    if not directory.is_dir():
        raise OutputError(f"{directory} is a file; choose a folder", code="output.file", path=directory)
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
