"""Define the server's routes: TensorFlow Serving's REST API, and a page for trying the model."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from recipes.serving.limits import Limits
from recipes.serving.model import LoadedModel, Overloaded
from recipes.serving.request import Rejected, parse, predict

PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)
_PAGE = Path(__file__).parent / "assets" / "serve.html"


def application(model: LoadedModel, name: str, limits: Limits) -> Starlette:
    """Return the ASGI application."""
    service = Service(model, name, limits)
    handlers = dict.fromkeys((Rejected, Overloaded, HTTPException, Exception), service.error)
    return Starlette(
        routes=service.routes(),
        exception_handlers={**handlers, ClientDisconnect: _disconnected},
        lifespan=service.running,
    )


class Service:
    """Handle all routes of one model."""

    def __init__(self, model: LoadedModel, name: str, limits: Limits):
        self._model, self._name, self._limits = model, name, limits
        self._bodies, self._page = Bodies(limits), page(model, name)
        self._base = f"/v1/models/{name}"

    def routes(self) -> list[Route]:
        model = self._model
        state = {"version": model.version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        about = {
            "model_spec": {"name": self._name, "version": model.version, "signature_name": ""},
            "metadata": {"signature_def": {"signature_def": model.describe()}, "recipes": model.metadata},
        }
        routes = [
            Route("/", self._index),
            Route("/health", _constant({"status": "ok"})),
            Route("/v1/models", _constant({"models": [self._name]})),
        ]
        for path in (self._base, f"{self._base}/versions/{model.version}"):
            routes += [
                Route(f"{path}:predict", self._predict, methods=["POST"]),
                Route(f"{path}/metadata", _constant(about)),
                Route(path, _constant({"model_version_status": [state]})),
            ]
        return routes

    @asynccontextmanager
    async def running(self, app: Starlette) -> AsyncIterator[None]:
        """Start the model's threads; at the end, answer everything in the queue and stop the threads."""
        self._model.start(self._limits.batch, self._limits.queue, self._limits.workers)
        yield
        self._model.stop()

    async def _predict(self, request: Request) -> Response:
        async with self._bodies.read(request) as body:
            kind = request.headers.get("content-type", "")
            answer = await predict(self._model, parse(body, kind, self._model.signatures, self._limits.queue))
        return Response(answer, media_type="application/json")

    async def _index(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(self._page, headers=headers)

    def error(self, request: Request, problem: Exception) -> Response:
        """Return the answer to a request that failed."""
        status = getattr(problem, "status", getattr(problem, "status_code", 500))
        text = getattr(problem, "detail", None) or str(problem) or type(problem).__name__
        if status == 404:
            version = self._model.version
            text = f"{request.url.path} does not exist; POST images to {self._base}:predict (version {version})"
        elif status == 405:
            text = f"{request.url.path} does not accept {request.method}; POST images to {self._base}:predict"
        headers = dict(getattr(problem, "headers", None) or {})
        if status == 503:
            headers["Retry-After"] = "1"
        if status in (408, 413, 503):
            headers["Connection"] = "close"  # closes the connection, because the rest of the body is not read
        return JSONResponse({"error": text}, status, headers)


def _disconnected(request: Request, problem: Exception) -> Response:
    return Response(status_code=499)  # the client has left, so nobody receives this answer


def _constant(content: dict) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return JSONResponse(content)

    return answer


class Bodies:
    """Read request bodies within the limits, and count the bytes of all requests in progress."""

    def __init__(self, limits: Limits):
        self._limits, self._bytes = limits, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body; its bytes count towards the limit until the block ends.

        Raises:
            Rejected: If a limit is exceeded.
        """
        parts, size = [], 0
        stream = request.stream()
        try:
            declared = request.headers.get("content-length", "0")
            declared = int(declared) if declared.isdecimal() else 0
            self._check(declared, declared)
            while (part := await self._next(stream)) is not None:
                self._check(size + len(part), len(part))
                self._bytes, size = self._bytes + len(part), size + len(part)
                parts.append(part)
            whole = b"".join(parts)
            parts.clear()
            yield whole
        except Rejected as problem:
            waits = request.headers.get("expect", "").lower() == "100-continue"
            if problem.status == 413 and not (waits and not parts):
                await self._discard(stream)
            raise
        finally:
            self._bytes -= size

    async def _next(self, stream: AsyncGenerator[bytes, None]) -> bytes | None:
        try:
            return await asyncio.wait_for(anext(stream, None), self._limits.idle)
        except TimeoutError:
            raise Rejected(
                408, f"no byte of the body arrived for {self._limits.idle:g} seconds; send the request again"
            ) from None

    async def _discard(self, stream: AsyncGenerator[bytes, None]) -> None:
        """Read more of a rejected body, because a client that is still sending does not read the answer.

        Afterwards the connection is closed, even if the client is still sending.
        """
        left = 4 * self._limits.body
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.idle):
                async for part in stream:
                    left -= len(part)
                    if left < 0:
                        return

    def _check(self, size: int, more: int) -> None:
        if size > self._limits.body:
            raise Rejected(413, f"the body is too large; expected at most {self._limits.body:,} bytes")
        if self._bytes + more > self._limits.bodies:
            raise Rejected(503, "the server is reading too many large requests; try again later")


def page(model: LoadedModel, name: str) -> str:
    """Return the HTML page for trying the model."""
    facts = {
        "name": name, "version": model.version, "classes": model.class_names,
        "predict": f"/v1/models/{quote(name)}:predict", "abstain": model.metadata.get("options", {}).get("abstain"),
    }  # fmt: skip
    script = json.dumps(facts).replace("<", "\\u003c")
    return _PAGE.read_text(encoding="utf-8").replace("/*FACTS*/null", script)
