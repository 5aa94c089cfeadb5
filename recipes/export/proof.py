"""The proof of an export: a fresh process loads it and must answer what `Result` answers."""

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

import augment
from recipes.data.evaluation_batches import evaluation_batches
from recipes.data.images import ImageData
from recipes.data.sources import unlabelled
from recipes.errors import ProofError
from recipes.export.proof_images import ProofImages
from recipes.networks.embedding import features_model
from recipes.runs.record import Record

TOLERANCE = 1e-4  # of a probability
AGREEMENT = 0.9  # of the top classes of quantized weights, which cannot meet the tolerance,
MEAN_DIFFERENCE = 0.05  # nor may an image's largest difference be more than this on average
_TIE = 1e-6  # classes this close are both the top one: float32 knows no better
_PIXELS = 2  # images that the signature `pixels` is asked about
_CLIENT = Path(__file__).with_name("proof_client.py")


@dataclass(frozen=True)
class Proof:
    """What the fresh process answered.

    images:     compared; `told` says which.
    difference: largest of a probability; mean_difference: the mean over the images of their largest.
    agreement:  share of images with the same top class.
    features:   largest difference of a feature, relative to the largest feature; None where there are none.
    tolerance:  of `difference`; None for quantized weights, of whose top classes `required` must agree.
    """

    images: int
    told: str
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
            f"{self.told}"
        )
        return line if self.features is None else f"{line}; features within {self.features:.1e}"

    def as_dict(self) -> dict:
        return asdict(self)


def prove(result: Record, kind: str, path: Path, images: ProofImages, crops, quantize: str | None) -> Proof:
    """Ask a fresh process about `images` and compare.

    kind: "saved_model", "keras", "onnx" or "litert", which is asked at `path`.

    Raises: ProofError when it answers otherwise, or not at all.
    """
    data = unlabelled(images.contents)
    arrays, expected = _questions(result, kind, data, images, crops, quantize)
    answers = ask(kind, path, arrays)
    refused = [i for i, text in enumerate(answers.get("error", [])) if text]
    if refused:
        shown = "; ".join(f"{images.names[i]}: {answers['error'][i]}" for i in refused[:3])
        raise ProofError(
            f"the export refuses {len(refused)} of {len(data)} images that the Result classifies: {shown}. For large "
            "ones raise max_pixels, or give others as proof="
        )
    pairs = [(expected[name], answers[name]) for name in expected if name != "features"]
    ours, theirs = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    features = None
    if "features" in expected:
        features = float(np.abs(answers["features"] - expected["features"]).max() / np.abs(expected["features"]).max())
    at = np.arange(len(ours))
    moved = np.abs(theirs - ours).max(1)
    same = ours[at, theirs.argmax(1)] >= ours.max(1) - _TIE
    proof = Proof(
        len(data), images.told, float(moved.max()), float(moved.mean()), float(same.mean()), features,
        None if quantize else TOLERANCE, AGREEMENT if quantize else 1.0,
    )  # fmt: skip
    _check(proof, ours, theirs, [*images.names, *(f"pixels {i}" for i in range(len(ours) - len(data)))])
    return proof


def _check(proof: Proof, ours, theirs, names) -> None:
    close = proof.difference <= proof.tolerance if proof.tolerance else proof.mean_difference <= MEAN_DIFFERENCE
    if proof.agreement >= proof.required and close:
        return
    worst = int(np.nan_to_num(np.abs(theirs - ours).max(1), nan=np.inf).argmax())
    raise ProofError(
        f"the export does not answer what the Result answers, so it was not written ({proof}). Worst is "
        f"{names[worst]}: the Result says {np.round(ours[worst], 5)}, the export {np.round(theirs[worst], 5)}"
    )


def _questions(result: Record, kind: str, data: ImageData, images: ProofImages, crops, quantize):
    """Arrays for the fresh process, and what `result` says to them."""
    if kind != "saved_model":
        return {"crops": crops_of(result, data)}, {"probabilities": result.probabilities(data)}
    expected = {"probabilities": result.probabilities(data, crops=crops)}
    whole = np.frombuffer(b"".join(images.contents), np.uint8)
    ends = np.cumsum([len(content) for content in images.contents])
    arrays = {"contents": whole, "ends": ends, "chunk": np.array(16)}
    embed = features_model(result.model)
    if embed is not None and not quantize:
        expected["features"] = embed.predict(_batches(result, data), verbose=0)
    for i in np.unique(np.linspace(0, len(data) - 1, _PIXELS).astype(int)):
        pixels = augment.decode(tf.constant(images.contents[i])).numpy()[None]
        if crops != 1 and max(pixels.shape[1:3]) > 4 * min(pixels.shape[1:3]):
            continue  # an odd shape
        arrays[f"pixels {i}"] = pixels
        expected[f"pixels {i}"] = result.probabilities(unlabelled(pixels), crops=crops)
    return arrays, expected


def crops_of(result: Record, data: ImageData) -> np.ndarray:
    """float32 (n, size, size, 3): what the network is shown of the images."""
    return np.concatenate(list(_batches(result, data).as_numpy_iterator()))


def _batches(result: Record, data: ImageData) -> tf.data.Dataset:
    batches = evaluation_batches(data, result.recipe.evaluation_policy, result.recipe.batch_size)
    return batches.map(lambda images, label: images)


def ask(kind: str, path: Path, arrays: dict) -> dict:
    """What a fresh process that loads the export at `path` answers.

    Raises: ProofError with the end of what it wrote, when it fails.
    """
    with tempfile.TemporaryDirectory(prefix="recipes-proof-") as folder:
        given, answer = Path(folder, "given.npz"), Path(folder, "answer.npz")
        np.savez(given, **arrays)
        command = [sys.executable, "-I", str(_CLIENT), kind, str(path), str(given), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
        if done.returncode:
            end = "\n".join(done.stderr.strip().splitlines()[-4:])
            raise ProofError(f"a fresh process could not run the export (exit code {done.returncode}): {end}")
        with np.load(answer, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
