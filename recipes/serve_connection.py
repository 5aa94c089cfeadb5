"""HTTP connections that end when nothing is asked on them: uvicorn's timeout begins only after a first answer."""

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection(idle: float) -> type[H11Protocol]:
    """uvicorn's protocol in pure Python, which bounds the size of headers, with connections closed that spend between
    `idle` and 2 · `idle` seconds without a complete request, whether they send nothing or a header byte by byte."""

    class Connection(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self._cycle_then = None
            self._watch = self.loop.call_later(idle, self._look)

        def connection_lost(self, problem):
            self._watch.cancel()
            super().connection_lost(problem)

        def _look(self):
            waiting = self.cycle is None or self.cycle.response_complete
            if waiting and self.cycle is self._cycle_then and not self.transport.is_closing():
                self.transport.close()
                return
            self._cycle_then = self.cycle
            self._watch = self.loop.call_later(idle, self._look)

    return Connection
