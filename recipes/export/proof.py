"""Prove an export: a fresh process loads it, and the predictions must match those of the `Result`."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from recipes import augment
from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.images import ImageData
from recipes.data.sources import unlabelled
from recipes.errors import ProofError
from recipes.export.fresh_process import run_python
from recipes.export.options import ExportOptions
from recipes.export.proof_images import ProofImages
from recipes.networks.embedding import features_model
from recipes.runs.record import Record

TOLERANCE = 1e-4  # maximum difference of a probability
AGREEMENT = 0.9  # minimum share of equal top classes with quantized weights, which cannot meet the tolerance
MEAN_DIFFERENCE = 0.05  # with quantized weights: maximum mean over the images of their largest difference
_TIE = 1e-6  # classes whose probabilities are this close both count as the top class, because of float32's precision
_PIXELS = 2  # number of images for the signature `pixels`
_CLIENT = Path(__file__).with_name("proof_client.py")


@dataclass(frozen=True)
class Proof:
    """Hold the comparison of the fresh process with the `Result`.

    Attributes:
        images: Number of images compared.
        description: Description of the images.
        difference: Largest difference of a probability.
        mean_difference: Mean over the images of the largest difference of a probability.
        agreement: Share of images with the same top class.
        features: Largest difference of a feature, relative to the largest feature; None without features.
        tolerance: Limit of `difference`; None for quantized weights.
        required: Limit of `agreement`.
    """

    images: int
    description: str
    difference: float
    mean_difference: float
    agreement: float
    features: float | None
    tolerance: float | None
    required: float

    def __str__(self) -> str:
        bound = (
            f"{self.tolerance:g}" if self.tolerance else f"quantized: {self.required:.0%}, {MEAN_DIFFERENCE} on average"
        )
        line = (
            f"proof: a fresh process agreed on the class of {self.agreement:.1%} of {self.images} images, "
            f"probabilities within {self.difference:.1e}, {self.mean_difference:.1e} on average (tolerance {bound}): "
            f"{self.description}"
        )
        return line if self.features is None else f"{line}; features agree within {self.features:.1e}"

    def as_dict(self) -> dict:
        """Return the fields by their names in metadata.json."""
        return {"told" if name == "description" else name: value for name, value in asdict(self).items()}


def prove(result: Record, options: ExportOptions, path: Path, images: ProofImages) -> Proof:
    """Compare the predictions of a fresh process for `images` with those of `result`.

    Args:
        result: The classifier.
        options: The options of the export.
        path: The export's folder or file.
        images: Images to compare on.

    Raises:
        ProofError: If the predictions differ or the process fails.
    """
    data = unlabelled(images.contents)
    arrays, expected = _inputs_and_expected(result, options, data, images)
    answers = predict_in_new_process(options.format, path, arrays)
    rejected = [i for i, text in enumerate(answers.get("error", [])) if text]
    if rejected:
        shown = "; ".join(f"{images.names[i]}: {answers['error'][i]}" for i in rejected[:3])
        raise ProofError(
            f"the export rejects {len(rejected)} of {len(data)} images that the Result classifies: {shown}. If these "
            f"images are large, raise max_pixels; else give other images as proof=",
            code="proof.rejected",
            names=[images.names[i] for i in rejected],
        )
    pairs = [(expected[name], answers[name]) for name in expected if name != "features"]
    ours, theirs = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    features = None
    if "features" in expected:
        features = float(np.abs(answers["features"] - expected["features"]).max() / np.abs(expected["features"]).max())
    differences = np.abs(theirs - ours).max(1)
    same = ours[np.arange(len(ours)), theirs.argmax(1)] >= ours.max(1) - _TIE
    proof = Proof(
        images=len(data),
        description=images.description,
        difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        agreement=float(same.mean()),
        features=features,
        tolerance=None if options.quantize else TOLERANCE,
        required=AGREEMENT if options.quantize else 1.0,
    )
    _check(proof, ours, theirs, [*images.names, *(f"pixels {i}" for i in range(len(ours) - len(data)))])
    return proof


def _check(proof: Proof, ours: np.ndarray, theirs: np.ndarray, names: Sequence[str]) -> None:
    close = proof.difference <= proof.tolerance if proof.tolerance else proof.mean_difference <= MEAN_DIFFERENCE
    if proof.agreement >= proof.required and close:
        return
    worst = int(np.nan_to_num(np.abs(theirs - ours).max(1), nan=np.inf).argmax())
    raise ProofError(
        f"the export's predictions differ from the Result's, so it was not written ({proof}). The largest difference "
        f"is at {names[worst]}: Result {np.round(ours[worst], 5)}, export {np.round(theirs[worst], 5)}",
        code="proof.mismatch",
        proof=proof,
        name=names[worst],
    )


def _inputs_and_expected(
    result: Record, options: ExportOptions, data: ImageData, images: ProofImages
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the input arrays for the fresh process, and the predictions of `result` for these inputs."""
    crops = options.crops
    if options.format != "saved_model":
        return {"crops": crops_of(result, data)}, {"probabilities": result.probabilities(data)}
    expected = {"probabilities": result.probabilities(data, crops=crops)}
    whole = np.frombuffer(b"".join(images.contents), np.uint8)
    ends = np.cumsum([len(content) for content in images.contents])
    arrays = {"contents": whole, "ends": ends, "chunk": np.array(16)}
    embed = features_model(result.model)
    if embed is not None and not options.quantize:
        expected["features"] = embed.predict(
            _batches(result, data),
            verbose=0,  # pyright: ignore[reportArgumentType] - Keras infers str from the default "auto"
        )
    for i in np.unique(np.linspace(0, len(data) - 1, _PIXELS).astype(int)):
        pixels = augment.decode(tf.constant(images.contents[i])).numpy()[None]
        if crops != 1 and max(pixels.shape[1:3]) > 4 * min(pixels.shape[1:3]):
            continue  # the image has an odd shape
        arrays[f"pixels {i}"] = pixels
        expected[f"pixels {i}"] = result.probabilities(unlabelled(pixels), crops=crops)
    return arrays, expected


def crops_of(result: Record, data: ImageData) -> np.ndarray:
    """Return the centre crops float32 (n, size, size, 3) that the network classifies."""
    return np.concatenate(list(_batches(result, data).as_numpy_iterator()))


def _batches(result: Record, data: ImageData) -> tf.data.Dataset:
    batches = evaluation_batches(data, result.recipe.evaluation_policy, result.recipe.batch_size)
    return batches.map(lambda images, label: images)


def predict_in_new_process(kind: str, path: Path, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the predictions of a fresh process that loads the export at `path`.

    Raises:
        ProofError: If the process fails; the message has the end of its error output.
    """
    with tempfile.TemporaryDirectory(prefix="recipes-proof-") as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(inputs, **arrays)
        command = ["-I", str(_CLIENT), kind, str(path), str(inputs), str(outputs)]
        failed = ProofError(
            "a fresh process could not run the export; check that the packages of the format work on this machine",
            code="proof.process",
        )
        run_python(command, {"TF_CPP_MIN_LOG_LEVEL": "3"}, failed)
        with np.load(outputs, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
