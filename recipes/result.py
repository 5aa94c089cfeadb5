"""What `finetune` returns: the model, how it came about, and everything one does with it."""

from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from recipes.audit import Audit, images_audited, look
from recipes.choice import Selection
from recipes.data import ImageData, Splits
from recipes.errors import DataError
from recipes.evaluation import Evaluation, score
from recipes.features import evaluation_batches
from recipes.probe import Probe
from recipes.recipe import Recipe
from recipes.sources import load as load_data
from recipes.sources import unlabelled
from recipes.suspects import Suspect


@dataclass(frozen=True)
class Prediction:
    """One image's most probable class, its probability, and the probabilities of all classes in their order."""

    class_name: str
    probability: float
    probabilities: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Gain:
    """One row of the ledger: the validation accuracy with a trick, and how much that is above the row before."""

    trick: str
    accuracy: float
    gain: float | None
    seconds: float

    def __str__(self) -> str:
        more = "" if self.gain is None else f" ({100 * self.gain:+.1f} points)"
        return f"{self.trick}: {self.accuracy:.1%}{more} in {self.seconds:.1f} s"


@dataclass(eq=False)
class Result:
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
    ledger:      what each step of the training was worth on the validation images.
    suspects:    images whose label is probably wrong, the most doubtful first; empty where nothing was probed.
    seconds:     wall-clock time by phase.
    command:     what `finetune` was asked for, `versions` with what it ran.
    """

    model: keras.Model
    class_names: list[str]
    recipe: Recipe
    history: dict[str, list[float]]
    audit: Audit
    backbone: str
    probe: Probe | None = None
    validation: Evaluation | None = None
    selection: Selection | None = None
    test: Evaluation | None = None
    table: str = ""
    ledger: tuple[Gain, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    command: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def probabilities(self, data: ImageData) -> np.ndarray:
        """(n, classes) probabilities of `data`, in its order.

        Raises: DataError naming the images that cannot be decoded.
        """
        batches = evaluation_batches(data, self.recipe.evaluation_policy, self.recipe.batch_size)
        try:
            return self.model.predict(batches.map(lambda images, label: images), verbose=0)
        except tf.errors.OpError:
            bad = [(name, fact.error) for name, fact in zip(data.names, look(data), strict=True) if fact.error]
            if not bad:
                raise
            shown = "; ".join(f"{name}: {error}" for name, error in bad[:5])
            raise DataError(f"{len(bad)} of {len(data)} images cannot be decoded: {shown}; leave them out") from None

    def predict(self, images) -> list[Prediction]:
        """Class names and probabilities of images.

        images: paths, a folder, encoded bytes, one image (height, width, 3) or a batch of 0..255 RGB.

        Raises: DataError naming the images that cannot be read or decoded.
        """
        data = unlabelled(images)
        rows = self.probabilities(data) if len(data) else []
        return [Prediction(self.class_names[row.argmax()], float(row.max()), row) for row in rows]

    def evaluate(self, dataset) -> Evaluation:
        """Accuracy with its uncertainty on labelled images in any form that `finetune` takes.

        Of a dataset with splits the test split counts, else the validation split. Images that the audit excludes are
        printed and left out. Labels that are not among `class_names` are a DataError.
        """
        splits = load_data(dataset, tuple(self.class_names))
        name, data = list(splits.given.items())[-1]
        facts = images_audited(Splits(data))
        for finding in facts.findings:
            print(finding)
        data = data.subset([i for i, file in enumerate(data.names) if file not in facts.excluded])
        if len(data) == 0:
            raise DataError("no image is left to evaluate on")
        if len(splits.given) > 1:
            print(f"evaluating on the {len(data)} images of the {name} split")
        return score(self.probabilities(data), data.labels)

    def save(self, directory) -> None:
        """Write the run to a folder; `recipes.load(directory)` brings it back.

        Raises: OutputError when the folder holds another run or something else.
        """
        from recipes.run_folder import save

        save(self, directory)

    def export(self, directory, *, format: str = "saved_model") -> None:
        """Write a SavedModel that takes encoded image bytes: see `recipes.export.export`."""
        from recipes.export import export

        export(self, directory, format=format)

    def report(self, path) -> None:
        """Write one self-contained HTML page that tells what was done, why, and what came out."""
        from recipes.report import write

        write(self, path)

    def __str__(self) -> str:
        lines = [f"{self.backbone}, {len(self.class_names)} classes: {', '.join(self.class_names[:10])}"]
        lines[0] += ", …" if len(self.class_names) > 10 else ""
        lines += [self.table] if self.table else []
        lines.append(str(self.recipe))
        lines += [f"  {gain}" for gain in self.ledger]
        if self.validation:
            lines.append(f"validation: {self.validation}")
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
