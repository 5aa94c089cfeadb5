"""Write a classifier for others to run, and prove first that it answers what the Result answers."""

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import tensorflow as tf

from recipes.core.locks import ProcessLock
from recipes.data.header_ops import MAX_PIXELS
from recipes.data.sources import unlabelled
from recipes.errors import OutputError, RecipesError
from recipes.evaluation.test_time import usual_mode
from recipes.export import formats, model_card
from recipes.export import other_process as tensorflow_writer
from recipes.export.proof import crops_of, prove
from recipes.export.proof_images import proof_images
from recipes.export.saved_model import Options, ServedModel
from recipes.runs.record import Record

logger = logging.getLogger(__name__)

FORMATS = ("saved_model", *formats.FILES)
_TENSORFLOW = ("saved_model", "onnx", "litert")  # formats of its graphs


def export(
    result: Record, directory, *, format: str = "saved_model", crops=1, top_k: int | None = None,
    abstain: float | None = None, quantize: str | None = None, proof=None, max_pixels: int = MAX_PIXELS,
) -> Path:  # fmt: skip
    """Write a version of the classifier that needs nothing of `recipes`, and return its folder.

    directory:  "serving" is given its next free version, serving/1, as TensorFlow Serving wants it; "serving/7" is that
                version.
    format:     "saved_model": encoded image bytes (JPEG with its EXIF orientation, PNG, GIF, BMP, WebP) in, decoding
                and cropping in the graph. "keras", "onnx", "litert": one file whose input `pixels` is the centre crop,
                float32 (batch, size, size, 3) RGB of 0..255.
    crops:      1, 5, 10 or "auto", as `Result.predict` takes it; other formats than "saved_model": 1.
    top_k:      how many of the most probable classes `top_names` names; None: up to 5.
    abstain:    `class_name` is empty where the largest probability is below this.
    quantize:   "float16" or "int8" weights, for "saved_model" and "litert" ("int8" there: activations too, scaled by
                the proof's images): a half and a quarter of the size.
    proof:      images to prove it with, in any form that `finetune` takes; None: the validation images if they are
                still where they were.
    max_pixels: height × width beyond which the SavedModel refuses an image by its header.

    A fresh process loads what was written and answers for the proof's images: every class must be the Result's, every
    probability within 1e-4 (quantized: 90 % of the classes). Only then does the folder appear, with the figures.

    SavedModel signatures: `serving_default` takes image_bytes, a string vector, and returns probabilities (batch,
    classes), class_names (classes,), class_name (batch,), top_names and top_probabilities (batch, top_k), error
    (batch,), empty where all is well: a damaged image has NaN and its reason, and does not disturb the others. `rows`
    is the same without class_names, `pixels` takes uint8 (batch, height, width, 3), `features` returns what the linear
    classifier sees.

    Raises: OutputError when the folder cannot be written, RecipesError for what cannot be exported, ProofError when the
        proof fails; nothing is left behind.
    """
    options = _checked(result, format, crops, top_k, abstain, quantize, max_pixels)
    images = proof_images(result.held_out, result.class_names, proof)
    with _version(directory) as (staged, final):
        path = staged if format == "saved_model" else staged / formats.FILES[format]
        here = keras.backend.backend() == "tensorflow" or format not in _TENSORFLOW
        calibration = lambda: crops_of(result, unlabelled(images.contents))  # noqa: E731
        (write if here else tensorflow_writer.write)(result, format, path, options, calibration)
        found = prove(result, format, path, images, crops, quantize)
        told = {"crops": crops, "quantize": quantize}
        if format == "saved_model":
            told |= {"top_k": options.top_k, "abstain": abstain, "max_pixels": max_pixels}
        model_card.write(staged, result, model_card.describe(result, format, told, found))
    logger.info(found)
    return final


def write(result: Record, format: str, path: Path, options: Options, calibration) -> None:
    """What `export` does once everything is checked, without a proof.

    calibration: () → float32 (n, size, size, 3), images that int8 activations of LiteRT are scaled by.

    Raises: RecipesError for what the format cannot hold, OSError.
    """
    if format != "saved_model":
        return formats.write(result, format, path, options.quantize, calibration)
    served = ServedModel(result, options)
    try:
        tf.saved_model.save(served, path, signatures=served.signatures())
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def check_backend(format: str) -> None:
    """Raises RecipesError for a format that cannot be written on Keras's backend."""
    if format in _TENSORFLOW and keras.backend.backend() == "torch":
        raise RecipesError(
            f"format {format!r} is written by TensorFlow, and Keras runs on torch here: save the run and give "
            f"KERAS_BACKEND=tensorflow recipes export RUN FOLDER --format {format}; torch itself writes 'keras'"
        )


def _checked(result: Record, format, crops, top_k, abstain, quantize, max_pixels) -> Options:
    """What was asked for, or a RecipesError before anything is written."""
    if format not in FORMATS:
        raise RecipesError(f"format is {format!r}; expected one of {', '.join(map(repr, FORMATS))}")
    check_backend(format)
    formats.check_installed(format)
    result.crop_set(crops, None)
    if format != "saved_model" and crops != 1:
        raise RecipesError(f"crops is {crops!r}, but format {format!r} takes crops, one by one: average outside of it")
    if quantize not in formats.QUANTIZED.get(format, (None,)):
        allowed = ", ".join(f"{name!r} takes {kinds[1:]}" for name, kinds in formats.QUANTIZED.items())
        raise RecipesError(f"quantize is {quantize!r} for format {format!r}; {allowed}, the others None")
    threshold = isinstance(abstain, int | float) and not isinstance(abstain, bool) and 0 <= abstain <= 1
    if abstain is not None and (format != "saved_model" or not threshold):
        raise RecipesError(f"abstain is {abstain!r}; expected a probability in [0, 1], for format 'saved_model'")
    classes = len(result.class_names)
    if format != "saved_model" and (top_k is not None or max_pixels != MAX_PIXELS):
        raise RecipesError(f"top_k and max_pixels are of format 'saved_model'; {format!r} returns all probabilities")
    if top_k is not None and not (type(top_k) is int and 1 <= top_k <= classes):
        raise RecipesError(f"top_k is {top_k!r}; expected a number from 1 to the {classes} classes")
    if not isinstance(max_pixels, int) or not 1 <= max_pixels < 2**31:
        raise RecipesError(f"max_pixels is {max_pixels!r}; expected a positive whole number")
    return Options(crops, top_k or min(5, classes), abstain, quantize, max_pixels, usual_mode())


@contextmanager
def _version(directory):
    """(a hidden folder to write to, the version's folder that it becomes at the end); nothing is left of a failure.

    Raises: OutputError when the version exists, or `directory` holds something that is no version.
    """
    final = Path(os.path.abspath(Path(directory).expanduser()))
    if not final.name.isdecimal():
        final = final / str(_next_version(final))
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        other = final.with_name(str(_next_version(final.parent)))
        raise OutputError(f"{final} exists and is not empty; choose another version, such as {other}")
    missing = [folder for folder in final.parents if not folder.exists()]
    staged = lock = None
    try:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _sweep(final.parent)
            staged = Path(tempfile.mkdtemp(prefix=f".new-{final.name}-", dir=final.parent))
            staged.chmod(0o755)
            lock = _staging_lock(staged)
            lock.acquire()
        except OSError as error:
            raise OutputError(f"{final} cannot be written: {error.strerror}; choose another folder") from error
        yield staged, final
        os.replace(staged, final)
    except OSError as error:
        raise OutputError(f"{final} cannot be written: {error}") from error
    finally:
        if staged is not None:
            shutil.rmtree(staged, ignore_errors=True)
        if lock is not None:
            lock.release(delete=True)
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
        raise OutputError(f"{directory} is a file; choose a folder")
    names = [entry.name for entry in directory.iterdir() if not entry.name.startswith(".")]
    strange = [name for name in names if not name.isdecimal()]
    if strange:
        raise OutputError(
            f"{directory} exists and is not empty: it holds {strange[0]!r}, which is no version; choose another "
            f"folder, such as {directory}-2"
        )
    return max(map(int, names), default=0) + 1
