"""Limit the time and number of HTTP connections, and define the server that accepts them.

uvicorn's own options are not enough: its timeout begins after the first answer, and beyond `limit_concurrency` it
answers in plain text, without Retry-After. uvicorn does limit the size of headers.
"""

import asyncio
import json
import logging
import socket
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

logger = logging.getLogger(__name__)

_TOO_MANY = JSONResponse(
    {"error": "the server has too many open connections; try again later"},
    503,
    {"Retry-After": "1", "Connection": "close"},
)


class Connection(H11Protocol):
    """Close a connection after `idle` to 2 · `idle` seconds without a complete request.

    The limit includes clients that send a header byte by byte. Beyond `most` connections, and for data that is not
    HTTP, the answer is JSON, as the application's answers are.
    """

    idle = 15.0
    most = 1024

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._watched: RequestResponseCycle | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # asyncio sets this option only for sockets that name TCP as their protocol, which uvicorn's do not. Without it,
        # an answer's body would wait 40 ms until the client acknowledges the headers.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.most:
            self.app = _TOO_MANY
        self._watch = self.loop.call_later(self.idle, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = json.dumps({"error": msg}).encode()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _close_if_idle(self) -> None:
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and self.cycle is self._watched and not self.transport.is_closing():
            self.transport.close()
            return
        self._watched = self.cycle
        self._watch = self.loop.call_later(self.idle, self._close_if_idle)


def connection(idle: float, most: int) -> type[Connection]:
    """Return the class of connections with these limits."""
    return type("Connection", (Connection,), {"idle": idle, "most": most})


class Server(uvicorn.Server):
    """Log a message once the server accepts connections."""

    def __init__(self, config: uvicorn.Config, message: str):
        super().__init__(config)
        self._message = message

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info(self._message)
