"""Parse prediction requests (TensorFlow Serving's JSON, an image file, or a form with files) and answer them."""

import base64
import binascii
import json
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from recipes.serving.body import is_form, is_image, read_form
from recipes.serving.model import LoadedModel, bounded


class Rejected(Exception):
    """Reject a request with an HTTP error.

    Args:
        status: HTTP status.
        message: The error's text.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class PredictRequest:
    """Hold a request for predictions.

    Attributes:
        signature: Name of a signature of the model.
        values: One encoded image per value, as bytes or as {"b64": "…"}; for the signature "pixels", nested lists.
        columnar: Whether the answer has one list per output instead of one object per image.
    """

    signature: str
    values: list
    columnar: bool = False


def parse(body: bytes, content_type: str, signatures: Collection[str], most: int) -> PredictRequest:
    """Parse the body of a request.

    Args:
        body: The bytes.
        content_type: The Content-Type header.
        signatures: Names of the model's signatures.
        most: Maximum number of images.

    Raises:
        Rejected: If the body is not a request, names an unknown signature, or has too many images.
    """
    signature, values, columnar = _parts(body, content_type, most)
    if not isinstance(signature, str) or signature not in signatures:
        raise Rejected(400, f"signature_name is {signature!r}; expected one of {sorted(signatures)}")
    if len(values) > most:
        raise Rejected(400, f"{len(values)} images in one request; send at most {most}")
    return PredictRequest(signature, values, columnar)


def _parts(body: bytes, content_type: str, most: int) -> tuple[object, list, bool]:
    """Return the fields of a PredictRequest; the signature is not checked yet."""
    if is_form(content_type):
        try:
            signature, files = read_form(body, content_type, most)
        except ValueError as error:
            raise Rejected(400, str(error)[:200]) from None
        if not files:
            raise Rejected(400, "the form has no images; send at least one file")
        return signature or "serving_default", files, False
    if is_image(body, content_type):
        return "serving_default", [body], False
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        expected = 'send {"instances": [{"b64": "…"}]}, an image file, or a form with image files'
        raise Rejected(400, f"the body is not JSON ({str(error)[:200]}) and not an image; {expected}") from None
    if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
        raise Rejected(400, 'the body must be {"instances": [{"b64": "…"}, …]} or {"inputs": …}')
    signature = content.get("signature_name") or "serving_default"
    columnar = "inputs" in content
    values = content["inputs"] if columnar else content["instances"]
    if columnar and isinstance(values, dict):
        values = _by_name(values, signature, "inputs")
    if not isinstance(values, list) or not values:
        raise Rejected(400, "the body has no images; send a list of at least one")
    if signature == "pixels" or not columnar:
        values = [_by_name(v, signature, f"image {i}") if isinstance(v, dict) else v for i, v in enumerate(values)]
    return signature, values, columnar


def _by_name(value: dict, signature: object, where: str) -> object:
    """Return the value of a signature's only input, which is given by name or as {"b64": "…"}."""
    name = "pixels" if signature == "pixels" else "image_bytes"
    if set(value) == {name}:
        return value[name]
    if set(value) == {"b64"}:
        return value
    raise Rejected(400, f'{where} has {sorted(value)[:5]}; expected {name!r} alone, or "b64"')


async def predict(model: LoadedModel, request: PredictRequest) -> bytes:
    """Compute the predictions for a request and return them as JSON.

    Raises:
        Rejected: If a value is malformed, or no image can be read.
        Overloaded: If the model's queue is full.
    """
    if request.signature == "pixels":
        answers = await model.predict_pixels(_pixels(request.values))
    else:
        contents = [bounded(_content(value, i)) for i, value in enumerate(request.values)]
        answers = await model.predict(request.signature, contents)
        if all(row["error"] for row in answers):
            texts = [row["error"] for row in answers]
            raise Rejected(
                400,
                texts[0]
                if len(texts) == 1
                else f"no image can be read ({'; '.join(texts[:5])}); send undamaged images in a supported format",
            )
    if not request.columnar:
        return _json({"predictions": answers})
    columns = {name: [row[name] for row in answers] for name in answers[0]}
    if request.signature != "features":
        columns["class_names"] = model.class_names
    return _json({"outputs": columns})


def _json(content: dict) -> bytes:
    """Return JSON; it contains no NaN, because a damaged image has null values."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()


def _content(value: object, i: int) -> bytes:
    """Return the bytes of an image that is given as bytes or as {"b64": "…"}."""
    if isinstance(value, bytes):
        return value
    text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(text, str):
        raise Rejected(400, f'image {i} must be {{"b64": "…"}} with the file\'s bytes in base64')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected(400, f"image {i} is not valid base64 ({error}); send the file's bytes in base64") from None


def _pixels(values: list) -> np.ndarray:
    try:
        pixels = np.array(values)
    except ValueError:
        pixels = np.zeros(0)
    whole = pixels.dtype.kind in "iu" and pixels.ndim == 4 and pixels.shape[-1] == 3 and 0 not in pixels.shape
    if not whole or pixels.min() < 0 or pixels.max() > 255:
        raise Rejected(
            400,
            "pixels has the wrong form; expected a list of images of one size, (batch, height, width, 3), whole "
            "numbers 0..255",
        )
    return pixels.astype(np.uint8)
