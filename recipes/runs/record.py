"""Hold the contents of a run: the classifier, how it was made, its predictions and its evaluation."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from recipes.auditing.audit import Audit, images_audited, inspect_images
from recipes.core.output import safe_output
from recipes.core.text import counted, described, percent
from recipes.data.evaluation_batches import images_alone
from recipes.data.image_forms import plain
from recipes.data.images import ImageData, Splits
from recipes.data.sources import load as load_data
from recipes.data.sources import unlabelled
from recipes.errors import DataError, RecipeError
from recipes.evaluation.calibrate import Calibration, cheapest_gain, crop_gains
from recipes.evaluation.headline import Headline, headline
from recipes.evaluation.ledger import Gain
from recipes.evaluation.metrics import Evaluation, score
from recipes.evaluation.noise import noisy
from recipes.evaluation.predictions import Judged
from recipes.evaluation.selection import Selection
from recipes.evaluation.test_time import averaged, check_crops, make_crops
from recipes.planning.evidence import mirrors_keep_class
from recipes.planning.lecture_table import LectureTable
from recipes.planning.recipe import CROPS, Recipe
from recipes.probing.label_errors import Suspect
from recipes.probing.probe import Probe
from recipes.runs.prediction import Prediction

logger = logging.getLogger(__name__)

Scales = Sequence[int] | None  # short sides in pixels of the images from which crops are taken


@dataclass(eq=False)
class Record:
    """Hold a finetuned classifier with its history.

    Attributes:
        model: (batch, height, width, 3) of 0..255 RGB, uint8 or float → (batch, classes) probabilities.
        class_names: Names in the order of the probabilities.
        recipe: The recipe, with the reasons for its values.
        history: One list per metric, one value per epoch; empty without a training by gradient steps.
        audit: Findings in the dataset, and how each was handled.
        backbone: Name of the pretrained network.
        probe: Accuracy of a linear classifier on each stage; None without a probe.
        validation: Metrics on the validation images, measured before a second training may have included them.
        calibration: Effect of the model's temperature; None without one.
        selection: Accuracy on the validation images, corrected for the choices made on them; None without choices.
        test: Metrics on the dataset's own test split, if it has one.
        table: The 2×2 table of dataset size and similarity with this dataset marked; None without a probe.
        ledger: Gain of each trick on the validation images; `print(recipes.ledger_table(result.ledger))`.
        suspects: Images whose label is probably wrong, the most doubtful first; empty without a probe.
        seconds: Wall-clock seconds of each phase.
        command: The arguments of `finetune`.
        versions: Versions of Python and the libraries.
        held_out: The validation images; in a loaded run only if they are files.
        judged: Predictions for the validation images, from which `validation` is computed.
    """

    model: keras.Model
    class_names: list[str]
    recipe: Recipe
    history: dict[str, list[float]]
    audit: Audit
    backbone: str
    probe: Probe | None = None
    validation: Evaluation | None = None
    calibration: Calibration | None = None
    selection: Selection | None = None
    test: Evaluation | None = None
    table: LectureTable | None = None
    ledger: tuple[Gain, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    command: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    held_out: ImageData | None = None
    judged: Judged | None = None

    def __post_init__(self) -> None:
        self.validation, self.test = (each and each.named(self.class_names) for each in (self.validation, self.test))

    @property
    def headline(self) -> Headline | None:
        """Return the accuracy to quote for this run, with its interval; None if no images were held out."""
        return headline(self.test, self.validation, self.selection)

    def __repr__(self) -> str:
        classes, recipe = counted(len(self.class_names), "class", "classes"), f"recipe {self.recipe.name!r}"
        accuracy = self.headline and f"accuracy {percent(self.headline.accuracy, self.headline.interval)}"
        images = counted(len(self.audit.fingerprints.get("train", ())), "training image")
        return described(type(self).__name__, repr(self.backbone), classes, recipe, accuracy, images)

    @safe_output()
    def probabilities(
        self, data: Any, *, crops: int | str = 1, scales: Scales = None, mode: str = "auto",
        average: str = "probabilities",
    ) -> np.ndarray:  # fmt: skip
        """Return the probabilities (n, classes) of images, in the order of the images.

        Args:
            data: ImageData, or images in any form that `predict` takes.
            crops: As in `evaluate`, like the other keywords.

        Raises:
            DataError: If images cannot be decoded; the message names them.
        """
        data = data if isinstance(data, ImageData) else unlabelled(data)
        if not len(data):
            return np.zeros((0, len(self.class_names)), np.float32)
        check_crops(scales, mode, average)
        crops, scales = self.crop_set(crops, scales)
        with _naming_bad_images(data):
            if crops == 1 and scales is None and mode != "dense":
                images = images_alone(data, self.recipe.evaluation_policy, self.recipe.batch_size)
                return self.model.predict(images, verbose=0)[: len(data)]
            looks = make_crops(self.model, self.recipe, crops, scales, mode, average)
            return averaged(self.model, data, looks, self.recipe.batch_size)

    def crop_set(self, crops: int | str, scales: Scales) -> tuple[int, Scales]:
        """Return the number of crops and their scales, with "auto" resolved."""
        if crops == "auto":
            if scales is not None:
                raise _wrong("scales", scales, "None, because crops='auto' also chooses the scales")
            return self.recipe.crops, self.recipe.scales
        if isinstance(crops, str | bool) or not isinstance(crops, Integral) or crops not in CROPS:
            raise _wrong("crops", crops, "1, 5, 10 or 'auto'")
        return crops, scales

    @safe_output()
    def predict(
        self, images: Any, *, crops: int | str = 1, samples: int = 0, abstain: float | None = None
    ) -> list[Prediction]:
        """Return the class name and probabilities of every image, in order.

        If an image of a folder or a list cannot be read or decoded, its Prediction has no class name and an `error`
        with the cause.

        Args:
            images: One image, an iterable of them (all paths, all encoded, or all arrays), a folder, or a batch as one
                array (n, height, width, 3). An image is a path, encoded bytes, an open binary file, a Pillow image, or
                an array (height, width, 3) of 0..255 RGB.
            crops: 1, 5, 10 or "auto", see `evaluate`.
            samples: Number of draws of the training's noise to average over, see `noise.noisy`; 0 for none. With
                samples, predictions have a `spread` and `mutual_information`.
            abstain: Probability in [0, 1] below which no class name is returned.

        Raises:
            DataError: If a single image cannot be read or decoded.
            RecipeError: If an argument is out of range, or crops and samples are given together.
        """
        if abstain is not None and not (isinstance(abstain, Real) and 0 <= abstain <= 1):
            raise _wrong("abstain", abstain, "a probability in [0, 1], or None")
        if not isinstance(samples, Integral):
            raise _wrong("samples", samples, "a whole number")
        if samples and crops != 1:
            raise _wrong("samples", samples, f"0 with crops={crops}, because every sample draws its own crop")
        images = plain(images)
        data = unlabelled(images)
        errors = [""] * len(data) if data.in_memory_pixels else [fact.error for fact in inspect_images(data)]
        if any(errors) and _is_single(images):
            raise _undecodable(f"{data.names[0]} cannot be decoded: {errors[0]}", [(data.names[0], errors[0])])
        readable = data.subset([i for i, error in enumerate(errors) if not error])
        predictions = iter(self._predictions(readable, crops, samples, abstain or 0) if len(readable) else ())
        noise = np.nan if samples else None
        failed = Prediction(None, np.nan, np.full(len(self.class_names), np.nan, np.float32), noise, noise)
        names = tuple(self.class_names)
        found = [failed if error else next(predictions) for error in errors]
        paths = data.names if data.on_disk else [None] * len(data)
        return [
            replace(prediction, path=path, error=error, class_names=names)
            for prediction, path, error in zip(found, paths, errors, strict=True)
        ]

    def _predictions(self, data: ImageData, crops: int | str, samples: int, abstain: float) -> list[Prediction]:
        """Return the predictions for images that can be decoded."""
        spreads = information = [None] * len(data)
        if samples:
            with _naming_bad_images(data):
                found = noisy(self.model, data, self.recipe, samples)
            rows, best = found.mean, found.mean.argmax(1)
            spreads = [float(spread) for spread in found.std[np.arange(len(data)), best]]
            information = [float(value) for value in found.mutual_information]
        else:
            rows = self.probabilities(data, crops=crops)
        names = [self.class_names[row.argmax()] if row.max() >= abstain else None for row in rows]
        return [
            Prediction(name, float(row.max()), row, spread, value)
            for name, row, spread, value in zip(names, rows, spreads, information, strict=True)
        ]

    @safe_output()
    def evaluate(
        self, dataset: Any, *, crops: int | str = 1, scales: Scales = None, mode: str = "auto",
        average: str = "probabilities",
    ) -> Evaluation:  # fmt: skip
        """Return the accuracy on labelled images, with its uncertainty.

        For a dataset with splits, the test split is used, or else the validation split. Images that the audit excludes
        are reported and left out.

        Args:
            dataset: Labelled images in any form that `finetune` takes.
            crops: Number of crops whose predictions are averaged: 1 (centre), 5 (with corners) or 10 (with mirror
                images). "auto" uses the set that gained significantly on the validation images.
            scales: Short sides in pixels at which the crops are taken; None: the crop's size for one crop, else 256/224
                of it. `recipes.lecture_scales(size)` returns ResNet's five.
            mode: "crops"; "dense": one fully convolutional pass at each scale covers every window of the image, and of
                its mirror image if crops is 10; "auto": the cheaper of both for several crops, except that scales above
                4/3 of the crop's size use crops, because dense windows lose accuracy there.
            average: "probabilities" or "logits".

        Raises:
            DataError: If a label is not among `class_names`, or the audit excludes every image.
        """
        data = self.evaluable(dataset)
        rows = self.probabilities(data, crops=crops, scales=scales, mode=mode, average=average)
        return score(rows, data.labels, self.class_names)

    @safe_output()
    def choose_crops(self, dataset: Any) -> None:
        """Measure 5, 10 and 50 crops on labelled images that were not trained on.

        Afterwards, `crops="auto"` uses the cheapest set with a significant gain, and the ledger has a row for each set.
        If mirror images do not keep their class, 5 and 25 crops are measured. If the model already averages over mirror
        images, 10 and 50 crops are measured.
        """
        data = self.evaluable(dataset)
        single = self.probabilities(data)
        alike = mirrors_keep_class(self.probe)
        measured = crop_gains(self.model, data, self.recipe, single, alike)
        crops, scales = cheapest_gain(measured)
        self.recipe = replace(self.recipe, crops=crops, scales=scales)
        others = [gain for gain in self.ledger if "crops" not in gain.trick]
        self.ledger = (*others, *(each.row for each in measured))

    @safe_output()
    def evaluable(self, dataset: Any) -> ImageData:
        """Return the labelled images of `dataset` on which `evaluate` measures the accuracy."""
        splits = load_data(dataset, tuple(self.class_names))
        name, data = list(splits.given.items())[-1]
        audit = images_audited(Splits(data))
        for note in (*splits.notes, *audit.findings):
            logger.info(note)
        rows = [i for i, file in enumerate(data.names) if file not in audit.excluded]
        data, fingerprints = data.subset(rows), self.audit.fingerprints
        used = {*fingerprints.get("train", ()), *fingerprints.get("validation", ())}
        overlap = sum(audit.fingerprints["train"][i] in used for i in rows)
        if overlap:
            logger.warning(
                f"{overlap} of {len(data)} images were used for training or model selection: this accuracy is "
                "optimistic"
            )
        if len(data) == 0:
            raise DataError("the audit excludes every image; `recipes audit` shows the causes", code="data.no_images")
        if len(splits.given) > 1:
            logger.info(f"evaluating on the {len(data)} images of the {name} split")
        return data


def _wrong(field: str, value: object, expected: str) -> RecipeError:
    return RecipeError(f"{field} is {value!r}; expected {expected}", code=f"recipe.{field}", field=field, value=value)


def _is_single(images: object) -> bool:
    """Return whether this is one image, neither a folder nor a list."""
    if isinstance(images, str | os.PathLike):
        return not Path(images).expanduser().is_dir()
    return isinstance(images, bytes)


@contextmanager
def _naming_bad_images(data: ImageData) -> Iterator[None]:
    """Raise a DataError with the names of the images that TensorFlow cannot decode but does not name."""
    try:
        yield
    except tf.errors.OpError:
        bad = [(name, fact.error) for name, fact in zip(data.names, inspect_images(data), strict=True) if fact.error]
        if not bad:
            raise
        shown = "; ".join(f"{name}: {error}" for name, error in bad[:5])
        message = f"{len(bad)} of {len(data)} images cannot be decoded: {shown}; leave them out"
        raise _undecodable(message, bad) from None


def _undecodable(message: str, bad: Sequence[tuple[str, str]]) -> DataError:
    """Return the error for images that cannot be decoded, each with its name and the cause."""
    files, reasons = zip(*bad, strict=True)
    return DataError(message, code="data.undecodable", files=files, reasons=reasons)
