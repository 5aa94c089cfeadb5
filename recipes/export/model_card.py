"""Write the documents of an export: a model card, its figures as JSON, and a JSON schema of input and output."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from recipes.core.output import printable
from recipes.errors import BackboneError
from recipes.evaluation.ledger import ledger_table
from recipes.evaluation.metrics import Evaluation
from recipes.export.options import ExportOptions
from recipes.export.proof import Proof
from recipes.networks.backbones import parse_call
from recipes.runs.record import Record

FOLDER = "assets.extra"
METADATA, CARD, SCHEMA = "metadata.json", "model_card.md", "schema.json"
_LICENCES = (
    (("ResNet50V2", "ResNet101V2", "ResNet152V2"), "BSD (Facebook)"),
    (("ResNet",), "MIT (Kaiming He)"),
    (("Xception",), "MIT (François Chollet)"),
    (("ConvNeXt",), "MIT (Meta)"),
    (("VGG",), "CC BY 4.0 (Visual Geometry Group, Oxford)"),
    (("DenseNet",), "BSD 3-clause (Zhuang Liu)"),
    (("MobileNet", "EfficientNet", "Inception", "NASNet"), "Apache-2.0"),
)


def describe(result: Record, options: ExportOptions, proof: Proof) -> dict:
    """Return the metadata of an export as JSON values whose text can be encoded in UTF-8."""
    names = ("crops", "quantize", *(("top_k", "abstain", "max_pixels") if options.format == "saved_model" else ()))
    metadata = {
        "format": options.format,
        "class_names": list(result.class_names),
        "image_size": result.recipe.evaluation_policy.size,
        "options": {name: getattr(options, name) for name in names},
        "proof": proof.as_dict() | {"summary": str(proof)},
        "backbone": result.backbone,
        "recipe": {"name": result.recipe.name, "reasons": list(result.recipe.reasons)},
        "command": result.command,
        "validation": result.validation and _figures(result.validation),
        "test": result.test and _figures(result.test),
        "calibration": result.calibration and asdict(result.calibration),
        "versions": result.versions,
        "weights_sha256": weights_checksum(result.model),
        "weights_licence": licence(result.backbone),
    }
    return _printable(metadata)


def _printable(value: Any) -> Any:
    """Apply `printable` to every text in nested JSON values."""
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(each) for each in value]
    return printable(value) if isinstance(value, str) else value


def _figures(evaluation: Evaluation) -> dict:
    names = ("accuracy", "interval", "macro_accuracy", "nll", "ece", "ece_floor", "n")
    return {name: getattr(evaluation, name) for name in names}


def weights_checksum(model: keras.Model) -> str:
    """Return the SHA-256 of the type, shape and bytes of every weight in order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight.value))
        digest.update(f"{value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def licence(backbone: str) -> str:
    """Return the licence of the pretrained weights, found by the backbone's name.

    For an ensemble ("soup of 2: A, B(x=1, y=2)"), the text contains the licences of all members.
    """
    _, several, members = backbone.partition(": ")
    if several:
        return "; ".join(dict.fromkeys(licence(member) for member in re.split(r", (?![^(]*\))", members)))
    if backbone == "glyphs":
        return "Apache-2.0 (trained from random weights by keras-recipes)"
    if "weights=None" in backbone:
        return "no pretrained weights: trained from random weights"
    try:
        name, _ = parse_call(backbone.removeprefix("finetuned "))
    except BackboneError:
        name = ""
    for families, terms in _LICENCES:
        if name.startswith(families):
            return f"{terms}; ImageNet weights of keras.applications.{name}, see https://keras.io/api/applications"
    return f"unknown: check the licence at the source of {backbone}"


def write(directory: Path, result: Record, metadata: dict) -> None:
    """Write the three documents to `directory`/assets.extra, with the checksums of all files of the export."""
    extra = directory / FOLDER
    extra.mkdir(exist_ok=True)
    (extra / CARD).write_text(printable(card(result, metadata)), encoding="utf-8")
    (extra / SCHEMA).write_text(json.dumps(schema(metadata), indent=1, ensure_ascii=False), encoding="utf-8")
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    sums = {p.relative_to(directory).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    text = json.dumps(metadata | {"files_sha256": sums}, indent=1, ensure_ascii=False, default=lambda n: n.item())
    (extra / METADATA).write_text(text, encoding="utf-8")


def schema(metadata: dict) -> dict:
    """Return the JSON Schema (2020-12) of a SavedModel's REST predictions, or of another format's tensors."""
    names, size = metadata["class_names"], metadata["image_size"]
    row = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": len(names), "maxItems": len(names)}
    if metadata["format"] != "saved_model":
        pixels = f"float32 (batch, {size}, {size}, 3), RGB in 0..255, the centre crop of the upright image"
        return _object("tensors", {
            "pixels": {"type": "array", "description": pixels},
            "probabilities": {"type": "array", "items": row, "description": f"of {names}, in this order"},
        })  # fmt: skip
    image = _object("an image file", {"b64": {"type": "string", "contentEncoding": "base64"}})
    images = _list({"anyOf": [image, _object("by name", {"image_bytes": image})]}) | {"minItems": 1}
    column = {"anyOf": [images, _object("by name", {"image_bytes": images})]}
    pixels = _list({}) | {"description": "(batch, height, width, 3), whole numbers 0..255"}
    number = {"type": ["number", "null"]}
    text = {"type": "string"}
    error = text | {"description": "empty if the image was classified"}
    answer = {
        "probabilities": row | {"description": f"of {names}, in this order; null where error is not empty"},
        "class_name": {"enum": [*names, ""], "description": "empty for an error, or below the abstention threshold"},
        "top_names": _list(text), "top_probabilities": _list(number), "error": error,
    }  # fmt: skip
    features = {"features": _list(number), "error": error}
    by_bytes = {"signature_name": {"enum": ["serving_default", "rows", "features"]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {
            "request": {"oneOf": [
                _object("POST /v1/models/NAME:predict", by_bytes | {"instances": images}, ["instances"]),
                _object("the same values as one list per output", by_bytes | {"inputs": column}, ["inputs"]),
                _object("pixels", {"signature_name": {"const": "pixels"}, "instances": pixels}),
            ]},
            "response": {"anyOf": [
                _object("200 to instances", {"predictions": _list(_object("one image", answer))}),
                _object("200 to inputs", {"outputs": _object("columns", {k: _list(v) for k, v in answer.items()}
                                                             | {"class_names": {"const": names}})}),
                _object("200 to features", {"predictions": _list(_object("one image", features))}),
                _object("200 to features in columns", {"outputs": _object("columns", {k: _list(v) for k, v in
                                                                                       features.items()})}),
            ]},
            "error": _object("4xx and 5xx", {"error": text}),
        },
    }  # fmt: skip


def _list(items: dict) -> dict:
    return {"type": "array", "items": items}


def _object(title: str, properties: dict, required: list[str] | None = None) -> dict:
    return {"title": title, "type": "object", "properties": properties, "required": required or list(properties)}


def card(result: Record, metadata: dict) -> str:
    """Return the model card (Mitchell et al. 2019) as Markdown."""
    names, recipe, options = metadata["class_names"], result.recipe, metadata["options"]
    rows = [
        f"# {result.backbone}: {len(names)} classes",
        "An image classifier, finetuned and exported by keras-recipes.",
        "## Classes", ", ".join(names),
        "## Data and split", *_data(result),
        "## Plan", _fenced(f"{result.table or ''}\n{recipe}".strip()),
        "## Accuracy", *_accuracy(result),
    ]  # fmt: skip
    rows += ["## Ledger", _fenced(ledger_table(result.ledger)) if result.ledger else "No trick was measured."]
    rows += ["## This export", *(f"- {name}: {value}" for name, value in options.items()), metadata["proof"]["summary"]]
    rows += ["## Limits", *_limits(metadata)]
    rows += ["## Versions", ", ".join(f"{name} {version}" for name, version in result.versions.items()) or "unknown"]
    rows += ["## Licence of the pretrained weights", metadata["weights_licence"]]
    rows += [f"SHA-256 of the weights: `{metadata['weights_sha256']}`"]
    return "\n\n".join(rows).replace("\n\n- ", "\n- ") + "\n"


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"


def _data(result: Record) -> list[str]:
    arguments = {name: value for name, value in result.command.items() if value is not None}
    rows = [f"- arguments: `{json.dumps(arguments, ensure_ascii=False, default=str)}`"]
    rows += [f"- {split}: {len(prints)} images" for split, prints in result.audit.fingerprints.items()]
    rows += [f"- audit: {finding}" for finding in result.audit.findings] or ["- audit: no findings"]
    return rows


def _accuracy(result: Record) -> list[str]:
    rows = [f"- {n}: {e}" for n, e in (("test", result.test), ("validation", result.validation)) if e is not None]
    rows += [f"- {result.selection}"] if result.selection else []
    rows += [f"- {result.calibration}"] if result.calibration else ["- probabilities are not calibrated"]
    return rows if result.test or result.validation else ["- not measured", *rows]


def _limits(metadata: dict) -> list[str]:
    rows = [
        "- For a picture of anything else, the model still predicts one of its classes"
        + (" unless it abstains." if metadata["options"].get("abstain") else "; `abstain` was not set."),
        "- The accuracy is valid for pictures like those of the measurement; with another camera, place or time it "
        "can differ.",
        "- A probability is the model's own estimate; the calibration error above says how reliable it is.",
    ]
    if metadata["format"] == "saved_model":
        rows.append(
            f"- Images beyond {metadata['options']['max_pixels']:,} pixels, unsupported formats and damaged files "
            f"return an error."
        )
    else:
        rows.append(
            "- Decoding and cropping are not part of this format; the input is the crop that the schema describes."
        )
    return rows
