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

from recipes.core.files import check_utf8
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
    result: Record, directory: str | os.PathLike, *, format: str = "saved_model", crops: int | str = 1,
    top_k: int | None = None, abstain: float | None = None, quantize: str | None = None, proof: object = None,
    max_pixels: int = MAX_PIXELS,
) -> Path:  # fmt: skip
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
        format: "saved_model": encoded image bytes (JPEG with its EXIF orientation, PNG, GIF, BMP, WebP) in, decoding
            and cropping in the graph. "keras", "onnx", "litert": one file whose input `pixels` is the centre crop,
            float32 (batch, size, size, 3) RGB of 0..255.
        crops: 1, 5, 10 or "auto", as `Result.predict` takes it; other formats than "saved_model": 1.
        top_k: Number of most probable classes in `top_names`; None: up to 5.
        abstain: `class_name` is empty where the largest probability is below this.
        quantize: "float16" or "int8" weights, for "saved_model" and "litert" ("int8" there: activations too, scaled by
            the proof's images): a half and a quarter of the size.
        proof: Images for the proof, in any form that `finetune` takes; None: the validation images, if their files
            still exist.
        max_pixels: height × width beyond which the SavedModel rejects an image by its header.

    Raises:
        OutputError: The folder cannot be written.
        RecipesError: An option is wrong, or the format cannot represent the classifier.
        ProofError: The proof failed; nothing is left behind.
    """
    options = _checked(result, format, crops, top_k, abstain, quantize, max_pixels)
    if format in _TENSORFLOW:
        check_utf8(Path(directory).expanduser())
    images = proof_images(result.held_out, result.class_names, proof)
    with _version(directory) as (staged, final):
        path = staged if format == "saved_model" else staged / formats.FILES[format]
        in_this_process = keras.backend.backend() == "tensorflow" or format not in _TENSORFLOW
        int8_activations = format == "litert" and quantize == "int8"
        calibration = crops_of(result, unlabelled(images.contents)) if int8_activations else None
        (write if in_this_process else tensorflow_writer.write)(result, format, path, options, calibration)
        found = prove(result, format, path, images, crops, quantize)
        described = {"crops": crops, "quantize": quantize}
        if format == "saved_model":
            described |= {"top_k": options.top_k, "abstain": abstain, "max_pixels": max_pixels}
        model_card.write(staged, result, model_card.describe(result, format, described, found))
    logger.info(found)
    return final


def write(result: Record, format: str, path: Path, options: Options, calibration: np.ndarray | None) -> None:
    """Write an export whose options are checked, without a proof.

    Args:
        result: The classifier.
        format: As `export` takes it.
        path: The SavedModel's folder, or the file.
        options: The choices that are fixed at the export.
        calibration: float32 (n, size, size, 3), images that scale the int8 activations of LiteRT; otherwise None.

    Raises:
        RecipesError: The format cannot represent the classifier.
        OSError: `path` cannot be written.
    """
    if format != "saved_model":
        return formats.write(result, format, path, options.quantize, calibration)
    served = ServedModel(result, options)
    try:
        tf.saved_model.save(served, path, signatures=served.signatures())
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def check_backend(format: str) -> None:
    """Check that `format` can be written on Keras's backend.

    Raises:
        RecipesError: It cannot.
    """
    if format in _TENSORFLOW and keras.backend.backend() == "torch":
        raise RecipesError(
            f"format {format!r} is written by TensorFlow, but Keras uses torch: save the run, then call "
            f"KERAS_BACKEND=tensorflow recipes export RUN FOLDER --format {format}; on torch, 'keras' can be written",
            code="export.backend",
            format=format,
        )


def _checked(
    result: Record, format: str, crops: int | str, top_k: int | None, abstain: float | None, quantize: str | None,
    max_pixels: int,
) -> Options:  # fmt: skip
    """Return the options, or raise a RecipesError before anything is written."""
    if format not in FORMATS:
        raise _wrong("format", format, f"expected one of {', '.join(map(repr, FORMATS))}")
    check_backend(format)
    formats.check_installed(format)
    result.crop_set(crops, None)
    saved_model, classes = format == "saved_model", len(result.class_names)
    if not saved_model and crops != 1:
        raise _wrong("crops", crops, f"format {format!r} computes one crop: average over several in your program")
    if quantize not in formats.QUANTIZED.get(format, (None,)):
        allowed = ", ".join(f"{name!r} takes {kinds[1:]}" for name, kinds in formats.QUANTIZED.items())
        raise _wrong("quantize", quantize, f"the format is {format!r}; {allowed}, other formats None")
    threshold = isinstance(abstain, int | float) and not isinstance(abstain, bool) and 0 <= abstain <= 1
    if abstain is not None and not (saved_model and threshold):
        raise _wrong("abstain", abstain, "expected a probability in [0, 1], for format 'saved_model'")
    for field, value, default in (("top_k", top_k, None), ("max_pixels", max_pixels, MAX_PIXELS)):
        if not saved_model and value != default:
            raise _wrong(field, value, f"only format 'saved_model' has this option; the format is {format!r}")
    if top_k is not None and not (type(top_k) is int and 1 <= top_k <= classes):
        raise _wrong("top_k", top_k, f"expected a number from 1 to the {classes} classes")
    if not isinstance(max_pixels, int) or not 1 <= max_pixels < 2**31:
        raise _wrong("max_pixels", max_pixels, "expected a positive whole number")
    return Options(crops, top_k or min(5, classes), abstain, quantize, max_pixels, usual_mode())


def _wrong(field: str, value: object, expected: str) -> RecipesError:
    return RecipesError(f"{field} is {value!r}; {expected}", code="export.option", field=field, value=value)


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
            raise OutputError(
                f"{final} cannot be written: {error.strerror}; choose another folder",
                code="output.not_writable",
                path=final,
            ) from error
        yield staged, final
        os.replace(staged, final)
    except OSError as error:
        raise OutputError(f"{final} cannot be written: {error}", code="output.not_writable", path=final) from error
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
