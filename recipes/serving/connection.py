"""HTTP connections that end when nothing is asked on them: uvicorn's timeout begins only after a first answer."""

import json
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection(idle: float, most: int) -> type[H11Protocol]:
    """uvicorn's protocol in pure Python, which bounds the size of headers, with connections closed that spend between
    `idle` and 2 · `idle` seconds without a complete request, whether they send nothing or a header byte by byte.

    Beyond `most` connections, and for what is no HTTP, it answers in JSON as the application does.
    """

    class Connection(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            # asyncio leaves this to sockets that name TCP as their protocol, and uvicorn's name none: an answer's body
            # would wait for 40 ms until the other side has acknowledged its head.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if len(self.connections) > most:
                self.app = _too_many
            self._cycle_then = None
            self._watch = self.loop.call_later(idle, self._look)

        def connection_lost(self, problem):
            self._watch.cancel()
            super().connection_lost(problem)

        def send_400_response(self, message):
            body = _json(message)
            head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            self.transport.close()

        def _look(self):
            waiting = self.cycle is None or self.cycle.response_complete
            if waiting and self.cycle is self._cycle_then and not self.transport.is_closing():
                self.transport.close()
                return
            self._cycle_then = self.cycle
            self._watch = self.loop.call_later(idle, self._look)

    return Connection


def _json(message: str) -> bytes:
    return json.dumps({"error": message}).encode()


async def _too_many(scope, receive, send) -> None:
    body = _json("too many connections; try again")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", b"1"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
