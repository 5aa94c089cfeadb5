"""Define and check the options of an export."""

from dataclasses import dataclass, field, replace

import keras

from recipes.data.header_ops import MAX_PIXELS
from recipes.errors import RecipesError
from recipes.evaluation.test_time import usual_mode
from recipes.export import formats
from recipes.runs.record import Record

FORMATS = ("saved_model", *formats.FILES)
BY_TENSORFLOW = ("saved_model", "onnx", "litert")  # formats that are written as TensorFlow graphs
_SERVED = {"top_k": None, "max_pixels": MAX_PIXELS}  # options that only "saved_model" has, with their defaults


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        format: "saved_model" takes encoded image bytes (JPEG with its EXIF orientation, PNG, GIF, BMP, WebP); its graph
            decodes and crops. "keras", "onnx" and "litert" are one file whose input `pixels` is the centre crop,
            float32 (batch, size, size, 3) RGB of 0..255.
        crops: 1, 5, 10 or "auto", as in `Result.predict`; always 1 for formats other than "saved_model".
        top_k: Number of most probable classes in `top_names`; None: up to 5.
        abstain: Probability below which `class_name` is empty.
        quantize: "float16" or "int8" weights for "saved_model" and "litert", a half or a quarter of the size. "int8" in
            "litert" also quantizes activations, scaled by the proof's images.
        max_pixels: Maximum height × width; the SavedModel rejects larger images by their header.
        mode: How several crops are computed, as in `Result.evaluate`.
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
            RecipesError: If an option is wrong, or the format cannot be written on this backend or cannot represent
            the classifier.
        """
        if self.format not in FORMATS:
            raise self._wrong("format", f"expected one of {', '.join(map(repr, FORMATS))}")
        check_backend(self.format)
        formats.check_installed(self.format)
        result.crop_set(self.crops, None)
        saved_model, classes = self.format == "saved_model", len(result.class_names)
        if not saved_model and self.crops != 1:
            raise self._wrong(
                "crops",
                f"expected 1, because format {self.format!r} computes one crop. Average several crops in your program",
            )
        if self.quantize not in formats.QUANTIZED.get(self.format, (None,)):
            allowed = ", ".join(f"{name!r} takes {kinds[1:]}" for name, kinds in formats.QUANTIZED.items())
            raise self._wrong(
                "quantize", f"expected {allowed}, and None for other formats; the format is {self.format!r}"
            )
        threshold, number = self.abstain, isinstance(self.abstain, int | float) and not isinstance(self.abstain, bool)
        if threshold is not None and not (saved_model and number and 0 <= threshold <= 1):
            raise self._wrong("abstain", "expected a probability in [0, 1], for format 'saved_model'")
        for name, default in _SERVED.items():
            if not saved_model and getattr(self, name) != default:
                raise self._wrong(
                    name,
                    f"expected the default, because the format is {self.format!r} and only 'saved_model' has this "
                    f"option",
                )
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
        RecipesError: If the backend cannot write the format.
    """
    if format in BY_TENSORFLOW and keras.backend.backend() == "torch":
        raise RecipesError(
            f"format {format!r} is written by TensorFlow, but Keras uses torch. Save the run, then call "
            f"KERAS_BACKEND=tensorflow recipes export RUN FOLDER --format {format}, or use format 'keras'",
            code="export.backend",
            format=format,
        )
