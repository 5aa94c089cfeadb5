"""An HTTP server over an exported SavedModel: TensorFlow Serving's REST routes, and a page for trying it."""

import asyncio
import base64
import binascii
import json
import logging
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np

from recipes.core.output import safe_output
from recipes.errors import OutputError, RecipesError
from recipes.serving.body import is_form, is_image, read_form
from recipes.serving.limits import Limits
from recipes.serving.model import LoadedModel, Overloaded, bounded, load_model

logger = logging.getLogger(__name__)

_PAGE = Path(__file__).parent / "assets" / "serve.html"
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)


class Refused(Exception):
    """A request that is answered with an error: its status, and what to say."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def application(model: LoadedModel, name: str, limits: Limits = Limits()):  # noqa: B008 - frozen
    """The ASGI application."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    taken = Bodies(limits)
    page = _page(model, name)
    base = f"/v1/models/{name}"
    state = {"version": model.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    about = {
        "model_spec": {"name": name, "version": model.version, "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": model.describe()}, "recipes": model.metadata},
    }

    async def predict(request):
        async with taken.body(request) as body:
            kind = request.headers.get("content-type", "")
            signature, rows, columnar = _asked(body, kind, limits.queue)
            answer = await _answered(model, signature, rows, columnar, limits)
        return Response(answer, media_type="application/json")

    def error(request, problem):
        status = getattr(problem, "status", getattr(problem, "status_code", 500))
        text = getattr(problem, "detail", None) or str(problem) or type(problem).__name__
        if status == 404:
            text = f"there is nothing at {request.url.path}; POST images to {base}:predict (version {model.version})"
        elif status == 405:
            text = f"{request.url.path} does not take {request.method}"
        headers = dict(getattr(problem, "headers", None) or {})
        if status == 503:
            headers["Retry-After"] = "1"
        if status in (408, 413, 503):
            headers["Connection"] = "close"  # what is left of the body is not read
        return JSONResponse({"error": text}, status, headers)

    def told(content):
        async def answer(request):
            return JSONResponse(content)

        return answer

    async def index(request):
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"})

    @asynccontextmanager
    async def lifespan(app):
        model.start(limits.batch, limits.queue, limits.workers)
        yield
        model.stop()

    version = f"{base}/versions/{model.version}"
    routes = [
        Route("/", index),
        Route("/health", told({"status": "ok"})),
        Route("/v1/models", told({"models": [name]})),
    ]
    for path in (base, version):
        routes += [
            Route(f"{path}:predict", predict, methods=["POST"]),
            Route(f"{path}/metadata", told(about)),
            Route(path, told({"model_version_status": [state]})),
        ]
    gone = lambda request, problem: Response(status_code=499)  # noqa: E731 - nobody is left to read it
    handlers = {Refused: error, Overloaded: error, HTTPException: error, ClientDisconnect: gone, Exception: error}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)


class Bodies:
    """Reads request bodies within the limits, and counts the bytes of all that are not answered yet."""

    def __init__(self, limits: Limits):
        self._limits, self._taken = limits, 0

    @asynccontextmanager
    async def body(self, request):
        parts, size = [], 0
        stream = request.stream()
        try:
            declared = request.headers.get("content-length", "0")
            declared = int(declared) if declared.isdecimal() else 0
            self._check(declared, declared)
            while True:
                try:
                    part = await asyncio.wait_for(anext(stream, None), self._limits.idle)
                except TimeoutError:
                    raise Refused(408, f"no byte of the body came for {self._limits.idle:g} seconds") from None
                if part is None:
                    break
                self._check(size + len(part), len(part))
                self._taken, size = self._taken + len(part), size + len(part)
                parts.append(part)
            whole = b"".join(parts)
            parts.clear()
            yield whole
        except Refused as problem:
            waits = request.headers.get("expect", "").lower() == "100-continue"
            if problem.status == 413 and not (waits and not parts):
                await self._discard(stream)
            raise
        finally:
            self._taken -= size

    async def _discard(self, stream):
        """Some more of a body that is refused: who is not done sending would not read the answer."""

        async def read():
            left = 4 * self._limits.body
            async for part in stream:
                left -= len(part)
                if left < 0:
                    return

        # After that the connection is closed, whoever still sends.
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), self._limits.idle)

    def _check(self, size: int, more: int):
        if size > self._limits.body:
            raise Refused(413, f"the body is larger than {self._limits.body:,} bytes")
        if self._taken + more > self._limits.bodies:
            raise Refused(503, "too many large requests at once; try again")


def _asked(body: bytes, content_type: str, most: int):
    """(signature, values, whether they came as columns) of a request: JSON, an image file, or a form with files."""
    if is_form(content_type):
        try:
            signature, files = read_form(body, content_type, most)
        except ValueError as error:
            raise Refused(400, str(error)[:200]) from None
        if not files:
            raise Refused(400, "there are no images in the form; send at least one file")
        return signature or "serving_default", files, False
    if is_image(body, content_type):
        return "serving_default", [body], False
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        expected = 'send {"instances": [{"b64": "…"}]}, an image file, or a form with image files'
        raise Refused(400, f"the body is not JSON ({str(error)[:200]}) and no image; {expected}") from None
    if not isinstance(asked, dict) or ("instances" in asked) == ("inputs" in asked):
        raise Refused(400, 'the body is not {"instances": [{"b64": "…"}, …]}, nor {"inputs": …}')
    signature = asked.get("signature_name") or "serving_default"
    columnar = "inputs" in asked
    values = asked["inputs"] if columnar else asked["instances"]
    if columnar and isinstance(values, dict):
        values = _named(values, signature, "inputs")
    if not isinstance(values, list) or not values:
        raise Refused(400, "there are no images in the body; send a list of at least one")
    if signature == "pixels" or not columnar:
        values = [_named(v, signature, f"image {i}") if isinstance(v, dict) else v for i, v in enumerate(values)]
    return signature, values, columnar


def _named(value: dict, signature, where: str):
    """What a signature's only input is given by name, or without, as bytes are in {"b64": "…"}."""
    name = "pixels" if signature == "pixels" else "image_bytes"
    if set(value) == {name}:
        return value[name]
    if set(value) == {"b64"}:
        return value
    raise Refused(400, f'{where} has {sorted(value)[:5]}; expected {name!r} alone, or "b64"')


async def _answered(model: LoadedModel, signature: str, values: list, columnar: bool, limits: Limits) -> bytes:
    if not isinstance(signature, str) or signature not in model.signatures:
        raise Refused(400, f"signature_name is {signature!r}; this model has {sorted(model.signatures)}")
    if len(values) > limits.queue:
        raise Refused(400, f"{len(values)} images in one request; send at most {limits.queue}")
    if signature == "pixels":
        answers = await model.ask_pixels(_pixels(values))
    else:
        contents = [bounded(_content(value, i)) for i, value in enumerate(values)]
        answers = await model.ask(signature, contents)
        if all(row["error"] for row in answers):
            texts = [row["error"] for row in answers]
            raise Refused(400, texts[0] if len(texts) == 1 else f"no image can be read: {'; '.join(texts[:5])}")
    if not columnar:
        return _json({"predictions": answers})
    columns = {name: [row[name] for row in answers] for name in answers[0]}
    if signature != "features":
        columns["class_names"] = model.class_names
    return _json({"outputs": columns})


def _json(content) -> bytes:
    """JSON has no NaN: that of a damaged image is null already."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode()


def _content(value, i: int) -> bytes:
    """The bytes in {"b64": "…"}, or those that came as they are."""
    if isinstance(value, bytes):
        return value
    text = value.get("b64") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(text, str):
        raise Refused(400, f'image {i} is no {{"b64": "…"}} with the file\'s bytes in base64')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"image {i} is no valid base64: {error}") from None


def _pixels(values: list) -> np.ndarray:
    try:
        pixels = np.array(values)
    except ValueError:
        pixels = np.zeros(0)
    whole = pixels.dtype.kind in "iu" and pixels.ndim == 4 and pixels.shape[-1] == 3 and 0 not in pixels.shape
    if not whole or pixels.min() < 0 or pixels.max() > 255:
        raise Refused(400, "pixels are no list of images of one size: (batch, height, width, 3), whole numbers 0..255")
    return pixels.astype(np.uint8)


def _page(model: LoadedModel, name: str) -> str:
    facts = {
        "name": name, "version": model.version, "classes": model.class_names,
        "predict": f"/v1/models/{quote(name)}:predict", "abstain": model.metadata.get("options", {}).get("abstain"),
    }  # fmt: skip
    inside = json.dumps(facts).replace("<", "\\u003c")
    return _PAGE.read_text(encoding="utf-8").replace("/*FACTS*/null", inside)


@safe_output()
def serve(
    directory, *, host: str = "127.0.0.1", port: int = 8501, name: str | None = None, limits: Limits = Limits(),  # noqa: B008
) -> None:  # fmt: skip
    """Serve the newest version in `directory` ("serving"), or one version ("serving/3"), until a signal comes.

    name: of the model in the routes; None: the folder's.

    Raises: OutputError when there is no SavedModel of `recipes`, or its files changed; RecipesError when the extra
        `serve` is not installed, or the address is taken.
    """
    try:
        import uvicorn

        from recipes.serving.connection import connection
    except ImportError as error:
        raise RecipesError(f"serving needs {error.name}: pip install 'keras-recipes[serve]'") from error
    model = load_model(directory)
    name = name or model.name
    if not name or any(c in "/:?#%{}\\ " for c in name):
        raise OutputError(f"the model's name is {name!r}; choose one without / : ? # % {{ }} \\ and spaces by --name")
    config = uvicorn.Config(
        application(model, name, limits), host=host, port=port, http=connection(limits.idle, limits.connections),
        ws="none", log_level="warning", access_log=False, timeout_keep_alive=int(limits.idle) or 1,
        timeout_graceful_shutdown=30, server_header=False,
    )  # fmt: skip
    try:
        sockets = [config.bind_socket()]
    except SystemExit:
        raise RecipesError(f"{host}:{port} cannot be listened on; choose another --port") from None
    model.warm()

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            where = f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}"
            logger.info(f"{model}\npage: {where}/\nREST: {where}/v1/models/{name}:predict")

    Server(config).run(sockets)
