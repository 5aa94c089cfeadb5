"""The options of an export."""

from dataclasses import dataclass, field, replace

import keras

from recipes.data.header_ops import MAX_PIXELS
from recipes.errors import RecipesError
from recipes.evaluation.test_time import usual_mode
from recipes.export import formats
from recipes.runs.record import Record

FORMATS = ("saved_model", *formats.FILES)
BY_TENSORFLOW = ("saved_model", "onnx", "litert")  # formats of its graphs
_SERVED = {"top_k": None, "max_pixels": MAX_PIXELS}  # options of "saved_model" alone, with their defaults


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        format: "saved_model": encoded image bytes (JPEG with its EXIF orientation, PNG, GIF, BMP, WebP) in, decoding
            and cropping in the graph. "keras", "onnx", "litert": one file whose input `pixels` is the centre crop,
            float32 (batch, size, size, 3) RGB of 0..255.
        crops: 1, 5, 10 or "auto", as `Result.predict` takes it; other formats than "saved_model": 1.
        top_k: Number of most probable classes in `top_names`; None: up to 5.
        abstain: `class_name` is empty where the largest probability is below this.
        quantize: "float16" or "int8" weights, for "saved_model" and "litert" ("int8" there: activations too, scaled by
            the proof's images): a half and a quarter of the size.
        max_pixels: height × width beyond which the SavedModel rejects an image by its header.
        mode: How several crops are computed, as `Result.evaluate` takes it.
    """

    format: str = "saved_model"
    crops: int | str = 1
    top_k: int | None = None
    abstain: float | None = None
    quantize: str | None = None
    max_pixels: int = MAX_PIXELS
    mode: str = field(default_factory=usual_mode)

    def checked(self, result: Record) -> "ExportOptions":
        """Return the options for `result`, with the number of `top_names`.

        Raises:
            RecipesError: One is wrong, the format cannot be written here, or cannot represent it.
        """
        if self.format not in FORMATS:
            raise self._wrong("format", f"expected one of {', '.join(map(repr, FORMATS))}")
        check_backend(self.format)
        formats.check_installed(self.format)
        result.crop_set(self.crops, None)
        saved_model, classes = self.format == "saved_model", len(result.class_names)
        if not saved_model and self.crops != 1:
            raise self._wrong(
                "crops", f"format {self.format!r} computes one crop: average over several in your program"
            )
        if self.quantize not in formats.QUANTIZED.get(self.format, (None,)):
            allowed = ", ".join(f"{name!r} takes {kinds[1:]}" for name, kinds in formats.QUANTIZED.items())
            raise self._wrong("quantize", f"the format is {self.format!r}; {allowed}, other formats None")
        threshold, number = self.abstain, isinstance(self.abstain, int | float) and not isinstance(self.abstain, bool)
        if threshold is not None and not (saved_model and number and 0 <= threshold <= 1):
            raise self._wrong("abstain", "expected a probability in [0, 1], for format 'saved_model'")
        for name, default in _SERVED.items():
            if not saved_model and getattr(self, name) != default:
                raise self._wrong(name, f"only format 'saved_model' has this option; the format is {self.format!r}")
        if self.top_k is not None and not (type(self.top_k) is int and 1 <= self.top_k <= classes):
            raise self._wrong("top_k", f"expected a number from 1 to the {classes} classes")
        if not isinstance(self.max_pixels, int) or not 1 <= self.max_pixels < 2**31:
            raise self._wrong("max_pixels", "expected a positive whole number")
        return replace(self, top_k=self.top_k or min(5, classes))

    def _wrong(self, field: str, expected: str) -> RecipesError:
        value = getattr(self, field)
        return RecipesError(f"{field} is {value!r}; {expected}", code="export.option", field=field, value=value)


def check_backend(format: str) -> None:
    """Check that `format` can be written on Keras's backend.

    Raises:
        RecipesError: It cannot.
    """
    if format in BY_TENSORFLOW and keras.backend.backend() == "torch":
        raise RecipesError(
            f"format {format!r} is written by TensorFlow, but Keras uses torch: save the run, then call "
            f"KERAS_BACKEND=tensorflow recipes export RUN FOLDER --format {format}; on torch, 'keras' can be written",
            code="export.backend",
            format=format,
        )
