"""What a run holds: the classifier, how it came about, and how it answers and is judged."""

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from recipes.auditing.audit import Audit, images_audited, inspect_images
from recipes.core.output import safe_output
from recipes.data.evaluation_batches import images_alone
from recipes.data.image_forms import plain
from recipes.data.images import ImageData, Splits
from recipes.data.sources import load as load_data
from recipes.data.sources import unlabelled
from recipes.errors import DataError, RecipeError
from recipes.evaluation.calibrate import Calibration, crop_gains
from recipes.evaluation.ledger import Gain, table
from recipes.evaluation.metrics import Evaluation, score
from recipes.evaluation.predictions import Judged
from recipes.evaluation.selection import Selection
from recipes.evaluation.test_time import averaged, check_looks, noisy, ways
from recipes.planning.recipe import CROPS, Recipe
from recipes.probing.label_errors import Suspect
from recipes.probing.probe import Probe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What the classifier says of one image.

    class_name:         the most probable class; None where `predict(abstain=…)` found it too improbable, and where the
                        image has an `error`.
    probability:        of the most probable class; NaN where the image has an `error`, like all other numbers.
    probabilities:      of all classes in their order.
    spread:             standard deviation of `probability` over the samples; None without samples.
    mutual_information: nats that the samples disagree about; None without samples.
    path:               of the image's file; None where it came as bytes or pixels.
    error:              why the image could not be read or decoded; empty where it could.
    """

    class_name: str | None
    probability: float
    probabilities: np.ndarray = field(repr=False)
    spread: float | None = None
    mutual_information: float | None = None
    path: str | None = None
    error: str = ""


@dataclass(eq=False)
class Record:
    """A finetuned classifier with its history. `print(result)` tells what was done and what came out.

    model:       (batch, height, width, 3) of 0..255 RGB, uint8 or float → (batch, classes) probabilities.
    class_names: in the order of the probabilities.
    recipe:      what was done and why.
    history:     one list per metric, one value per epoch; empty where nothing was trained by gradient steps.
    audit:       what was odd in the data, and what became of it.
    validation:  on the images that took part in the choices, before they joined the training images, where they did;
    selection:   what these choices leave of it; None where the images chose nothing.
    test:        on the dataset's own test split, if it has one.
    table:       the lecture's 2×2 table with this dataset marked; empty where nothing was probed.
    ledger:      what each trick was worth on the validation images; `print(recipes.ledger_table(result.ledger))`.
    suspects:    images whose label is probably wrong, the most doubtful first; empty where nothing was probed.
    calibration: of the temperature in the model; None where none is in it.
    seconds:     wall-clock time by phase.
    command:     what `finetune` was asked for, `versions` with what it ran.
    held_out:    the validation images; of a loaded run only where they are files.
    judged:      what was predicted of them, image by image; `validation` is made of it.
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
    table: str = ""
    ledger: tuple[Gain, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    command: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    held_out: ImageData | None = None
    judged: Judged | None = None

    @safe_output()
    def probabilities(
        self, data, *, crops=1, scales=None, mode: str = "auto", average: str = "probabilities"
    ) -> np.ndarray:
        """Return the (n, classes) probabilities of images in their order; see `evaluate` for the keywords.

        data: ImageData, or images in any form that `predict` takes.

        Raises: DataError naming the images that cannot be decoded.
        """
        data = data if isinstance(data, ImageData) else unlabelled(data)
        if not len(data):
            return np.zeros((0, len(self.class_names)), np.float32)
        check_looks(scales, mode, average)
        crops, scales = self.crop_set(crops, scales)
        with _naming_bad_images(data):
            if crops == 1 and scales is None and mode != "dense":
                images = images_alone(data, self.recipe.evaluation_policy, self.recipe.batch_size)
                return self.model.predict(images, verbose=0)[: len(data)]
            looks = ways(self.model, self.recipe, crops, scales, mode, average)
            return averaged(self.model, data, looks, self.recipe.batch_size)

    def crop_set(self, crops, scales) -> tuple[int, tuple[int, ...] | None]:
        if crops == "auto":
            if scales is not None:
                raise RecipeError("crops='auto' chooses the scales too; give either crops='auto' or scales")
            return self.recipe.crops, self.recipe.scales
        if isinstance(crops, bool) or not isinstance(crops, Integral) or crops not in CROPS:
            raise RecipeError(f"crops is {crops!r}; expected 1, 5, 10 or 'auto'")
        return crops, scales

    @safe_output()
    def predict(self, images, *, crops=1, samples: int = 0, abstain: float | None = None) -> list[Prediction]:
        """Return the class name and probabilities of every image, in order.

        images:  one image, an iterable of them (all paths, all encoded, or all arrays), a folder, or a batch as one
                 array (n, height, width, 3). An image is a path, encoded bytes, an open binary file, a Pillow image, or
                 an array (height, width, 3) of 0..255 RGB.
        crops:   1, 5, 10 or "auto", see `evaluate`.
        samples: 0, or average over so many draws of the training's noise, see `test_time.noisy`: predictions then carry
                 their `spread` and `mutual_information`.
        abstain: no class name where the probability is below this number in [0, 1].

        An image of a folder or a list that cannot be read or decoded has a Prediction whose `error` says why, without
        a class name.

        Raises: DataError for a single image that cannot be read or decoded; RecipeError for crops and samples together.
        """
        if abstain is not None and not (isinstance(abstain, Real) and 0 <= abstain <= 1):
            raise RecipeError(f"abstain is {abstain!r}; expected a probability in [0, 1], or None")
        if not isinstance(samples, Integral):
            raise RecipeError(f"samples is {samples!r}; expected a whole number")
        if samples and crops != 1:
            raise RecipeError(f"crops is {crops} and samples {samples}: every sample draws a crop; give one of them")
        images = plain(images)
        data = unlabelled(images)
        errors = [""] * len(data) if data.in_memory_pixels else [fact.error for fact in inspect_images(data)]
        if any(errors) and _alone(images):
            raise DataError(f"{data.names[0]} cannot be decoded: {errors[0]}")
        readable = data.subset([i for i, error in enumerate(errors) if not error])
        predictions = iter(self._predictions(readable, crops, samples, abstain or 0) if len(readable) else ())
        nothing = np.full(len(self.class_names), np.nan, np.float32)
        noise = dict.fromkeys(("spread", "mutual_information"), np.nan) if samples else {}
        found = [Prediction(None, np.nan, nothing, **noise) if error else next(predictions) for error in errors]
        paths = data.names if data.on_disk else [None] * len(data)
        return [replace(p, path=path, error=error) for p, path, error in zip(found, paths, errors, strict=True)]

    def _predictions(self, data: ImageData, crops, samples: int, abstain: float) -> list[Prediction]:
        """Of images that can be decoded."""
        spreads = [{}] * len(data)
        if samples:
            with _naming_bad_images(data):
                found = noisy(self.model, data, self.recipe, samples)
            rows, best = found.mean, found.mean.argmax(1)
            pairs = zip(found.std[np.arange(len(data)), best], found.mutual_information, strict=True)
            spreads = [dict(spread=float(s), mutual_information=float(i)) for s, i in pairs]
        else:
            rows = self.probabilities(data, crops=crops)
        names = [self.class_names[row.argmax()] if row.max() >= abstain else None for row in rows]
        return [
            Prediction(name, float(row.max()), row, **spread)
            for name, row, spread in zip(names, rows, spreads, strict=True)
        ]

    @safe_output()
    def evaluate(
        self, dataset, *, crops=1, scales=None, mode: str = "auto", average: str = "probabilities"
    ) -> Evaluation:
        """Accuracy with its uncertainty on labelled images in any form that `finetune` takes.

        crops:   1 (the centre), 5 (and the corners) or 10 (and their mirror images) whose predictions are averaged;
                 "auto": what gained on the validation images beyond its noise.
        scales:  short sides in pixels at which the crops are taken; None: 256/224 of the crop's size, for one crop its
                 size; `recipes.lecture_scales(size)` are ResNet's five.
        mode:    "crops"; "dense": at each scale every window of the image, and of its mirror image if crops is 10, in
                 one fully convolutional pass in place of the crops; "auto": the cheaper for several
                 crops, crops at scales above 4/3 of their size, where windows of the whole lose accuracy.
        average: "probabilities" or "logits".

        Of a dataset with splits the test split counts, else the validation split. Images that the audit excludes are
        printed and left out. Labels that are not among `class_names` are a DataError.
        """
        data = self.evaluable(dataset)
        return score(self.probabilities(data, crops=crops, scales=scales, mode=mode, average=average), data.labels)

    @safe_output()
    def choose_crops(self, dataset) -> None:
        """Measure 5, 10 and 50 crops on labelled images that were not trained on: `crops="auto"` is from now on the
        cheapest set whose gain is beyond its noise, and the ledger has their rows. Where mirror images lose their
        class, 5 and 25 crops; where the model averages over them by itself, 10 and 50."""
        data = self.evaluable(dataset)
        single = self.probabilities(data)
        alike = not self.probe or self.probe.mirrors.alike
        rows = crop_gains(self.model, data, self.recipe, single, alike)
        chosen = next(((crops, scales) for crops, scales, row in rows if row.kept), (1, None))
        self.recipe = replace(self.recipe, crops=chosen[0], scales=chosen[1])
        others = [gain for gain in self.ledger if "crops" not in gain.trick]
        self.ledger = (*others, *(row for *_, row in rows))

    @safe_output()
    def evaluable(self, dataset) -> ImageData:
        """The labelled images of `dataset` that `evaluate` judges by."""
        splits = load_data(dataset, tuple(self.class_names))
        name, data = list(splits.given.items())[-1]
        facts = images_audited(Splits(data))
        for note in (*splits.notes, *facts.findings):
            logger.info(note)
        kept = [i for i, file in enumerate(data.names) if file not in facts.excluded]
        data, prints = data.subset(kept), self.audit.fingerprints
        seen = {*prints.get("train", ()), *prints.get("validation", ())}
        known = sum(facts.fingerprints["train"][i] in seen for i in kept)
        if known:
            logger.warning(
                f"{known} of {len(data)} images were used for training or model selection: this accuracy is optimistic"
            )
        if len(data) == 0:
            raise DataError("no image is left to evaluate on")
        if len(splits.given) > 1:
            logger.info(f"evaluating on the {len(data)} images of the {name} split")
        return data

    def __str__(self) -> str:
        lines = [f"{self.backbone}, {len(self.class_names)} classes: {', '.join(self.class_names[:10])}"]
        lines[0] += ", …" if len(self.class_names) > 10 else ""
        lines += [self.table] if self.table else []
        lines.append(str(self.recipe))
        lines += ["  " + line for line in table(self.ledger).splitlines()]
        if self.validation:
            lines.append(f"validation: {self.validation}")
        if self.calibration:
            lines.append(f"  {self.calibration}")
        if self.selection:
            lines.append(f"  {self.selection}")
        if self.test:
            lines.append(f"test: {self.test}")
        lines += [f"audit: {finding}" for finding in self.audit.findings]
        if self.suspects:
            lines.append(f"{len(self.suspects)} labels to look at, the most doubtful first:")
            lines += [f"  {suspect}" for suspect in self.suspects[:5]]
        spent = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in self.seconds.items())
        return "\n".join([*lines, f"{sum(self.seconds.values()):.1f} s: {spent}"])


def _alone(images) -> bool:
    """Whether these are one encoded image, neither a folder nor a list."""
    if isinstance(images, str | os.PathLike):
        return not Path(images).expanduser().is_dir()
    return isinstance(images, bytes)


@contextmanager
def _naming_bad_images(data: ImageData):
    """A DataError naming the images of `data` that cannot be decoded, where TensorFlow names none."""
    try:
        yield
    except tf.errors.OpError:
        bad = [(name, fact.error) for name, fact in zip(data.names, inspect_images(data), strict=True) if fact.error]
        if not bad:
            raise
        shown = "; ".join(f"{name}: {error}" for name, error in bad[:5])
        raise DataError(f"{len(bad)} of {len(data)} images cannot be decoded: {shown}; leave them out") from None
