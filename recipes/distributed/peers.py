"""Connect the workers of a job on several hosts."""

import json
import os
import select
import socket
import struct
import time
import zlib
from contextlib import suppress

from recipes.core.addresses import port_of
from recipes.distributed.job import Job
from recipes.errors import ClusterError, PeerLost

_WAIT = "RECIPES_PEER_WAIT"  # default seconds that a worker waits for the others
_LARGEST = 2**32  # maximum bytes of a message
_PAUSE = 0.5  # seconds between two attempts to reach worker 0
_GREETING_SECONDS = 5  # seconds within which a new connection must say which worker it is
# A silent host counts as stopped after 25 s; the last value, in ms, applies while an answer is expected.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}


class Peers:
    """Connect worker 0 with each other worker, for all messages except gradients and weights.

    The constructor makes the connections: worker 0 listens on its address until all others are connected and have sent
    the same command.

    Args:
        job: The addresses of the workers, and this worker's number.
        command: The arguments that must be the same on all workers, name → value.

    Raises:
        ClusterError: If a worker does not connect in time, or has a different command.
    """

    def __init__(self, job: Job, command: dict) -> None:
        self.number, self.count = job.number, len(job.addresses)
        limit = _seconds_to_wait()
        greeting = {"worker": self.number, "workers": list(job.addresses), "command": command}
        if self.number == 0:
            self._sockets = self._gather(job, greeting, limit)
        else:
            self._sockets = {0: self._call(job, greeting, limit)}

    def send(self, message: dict) -> None:
        """Send a message from worker 0 to all others, or from another worker to worker 0."""
        for number, peer in self._sockets.items():
            _put(peer, message, number)

    def receive(self, number: int = 0) -> dict:
        """Wait for the next message of a worker and return it.

        Raises:
            PeerLost: If the worker has stopped.
        """
        return _get(self._sockets[number], number)

    def reported_failure(self, seconds: float) -> tuple[int, dict] | None:
        """Return a worker's number and failure message, if one arrives within so many seconds."""
        open_sockets, end = dict(self._sockets), time.monotonic() + seconds
        while open_sockets and (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select([*open_sockets.values()], [], [], left)
            for number in [number for number, peer in open_sockets.items() if peer in readable]:
                try:
                    if "kind" in (message := self.receive(number)):
                        return number, message
                except PeerLost:
                    del open_sockets[number]
        return None

    def lost(self, seconds: float) -> bool:
        """Return whether a worker stops within so many seconds."""
        readable, _, _ = select.select([*self._sockets.values()], [], [], seconds)
        try:
            return any(not peer.recv(1, socket.MSG_PEEK) for peer in readable)
        except OSError:
            return True

    @property
    def others(self) -> list[int]:
        """Return the numbers of the connected workers."""
        return sorted(self._sockets)

    def close(self) -> None:
        """Close all connections."""
        for peer in self._sockets.values():
            peer.close()

    def _gather(self, job: Job, greeting: dict, limit: float) -> dict[int, socket.socket]:
        """Wait, as worker 0, for the other workers, and return their connections."""
        end, peers, greetings = time.monotonic() + limit, {}, {}
        with _listener(job) as listener:
            while len(peers) < self.count - 1:
                listener.settimeout(max(0.01, end - time.monotonic()))
                if arrival := _accept(listener):
                    number, peer, theirs = arrival
                    peers[number], greetings[number] = peer, theirs
                elif time.monotonic() >= end:
                    absent = tuple(n for n in range(1, self.count) if n not in peers)
                    shown = ", ".join(f"{n} ({job.addresses[n]})" for n in absent)
                    text = f"worker {shown} did not connect within {limit:.0f} s"
                    text += f": run the same command on every host; {_WAIT}=SECONDS waits longer"
                    raise _refuse(peers, text, "cluster.missing_worker", absent)
        differing = [n for n in sorted(peers) if greetings[n] != greeting | {"worker": n}]
        if differing:
            text = "; ".join(_difference(n, greeting, greetings[n]) for n in differing)
            text = f"the workers have different commands ({text}); run the same command on every host"
            raise _refuse(peers, text, "cluster.other_command", tuple(differing))
        for number, peer in peers.items():
            _put(peer, {"go": True}, number)
        return peers

    def _call(self, job: Job, greeting: dict, limit: float) -> socket.socket:
        """Connect to worker 0 and wait until all workers are connected to it."""
        host, port = job.addresses[0].rsplit(":", 1)
        end, reason = time.monotonic() + limit, "no answer"
        while time.monotonic() < end:
            try:
                peer = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
                _put(peer, greeting, 0)
                peer.settimeout(max(1, end - time.monotonic()))
                answer = _get(peer, 0)
            except (PeerLost, ValueError, zlib.error, OSError) as error:
                reason = error
                time.sleep(_PAUSE)
                continue
            if "refused" in answer:
                raise ClusterError(answer["refused"], code=answer["code"])
            return _configured(peer)
        raise ClusterError(
            f"worker 0 at {job.addresses[0]} cannot be reached within {limit:.0f} s ({reason}); run the same command "
            f"on every host, or set {_WAIT}=SECONDS to wait longer",
            code="cluster.unreachable",
            address=job.addresses[0],
        )


def _listener(job: Job) -> socket.socket:
    port, both = port_of(job.addresses[0]), socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port or 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
    except OSError as error:
        raise ClusterError(
            f"worker 0 cannot listen on port {port} of TF_CONFIG ({error.strerror}); choose a free port in TF_CONFIG "
            f"on every host",
            code="cluster.port",
            port=port,
        ) from None


def _accept(listener: socket.socket) -> tuple[int, socket.socket, dict] | None:
    """Return a worker's number, connection and greeting; None if no worker connects."""
    try:
        peer, _ = listener.accept()
    except OSError:
        return None
    try:
        peer.settimeout(_GREETING_SECONDS)
        greeting = _get(peer, -1)
        return greeting["worker"], _configured(peer), greeting
    except (PeerLost, KeyError, ValueError, zlib.error, OSError):
        peer.close()  # for example a process of an earlier job
        return None


def _refuse(peers: dict[int, socket.socket], text: str, code: str, workers: tuple[int, ...]) -> ClusterError:
    """Send an error to all workers and return the error."""
    for number, peer in peers.items():
        with suppress(PeerLost):
            _put(peer, {"refused": text, "code": code}, number)
        peer.close()
    return ClusterError(text, code=code, workers=workers)


def _seconds_to_wait() -> float:
    text = os.environ.get(_WAIT, "300")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 10**7:
        raise ClusterError(
            f"{_WAIT} is {text!r}; expected a positive number of seconds, such as 300", code="cluster.wait", value=text
        )
    return seconds


def _configured(peer: socket.socket) -> socket.socket:
    """Prepare a connection for the job: no timeout, but keep-alive checks of the other host."""
    peer.settimeout(None)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def _difference(number: int, ours: dict, theirs: dict) -> str:
    if theirs.get("workers") != ours["workers"]:
        return f"TF_CONFIG lists {theirs.get('workers')} at worker {number} and {ours['workers']} at worker 0"
    mine, other = ours["command"], theirs.get("command", {})
    return "; ".join(
        f"{name} is {mine.get(name)!r} at worker 0 and {other.get(name)!r} at worker {number}"
        for name in {**mine, **other}
        if mine.get(name) != other.get(name)
    )


def _put(peer: socket.socket, message: dict, number: int) -> None:
    packed = zlib.compress(json.dumps(message, default=lambda number: number.item()).encode(), 1)
    try:
        peer.sendall(struct.pack(">Q", len(packed)) + packed)
    except OSError as error:
        raise PeerLost(f"worker {number} has stopped ({error.strerror or error})") from None


def _get(peer: socket.socket, number: int) -> dict:
    (size,) = struct.unpack(">Q", _read(peer, 8, number))
    if size > _LARGEST:
        raise ValueError(f"a message of {size} bytes")
    message = json.loads(zlib.decompress(_read(peer, size, number)))
    if not isinstance(message, dict):
        raise ValueError("the message is not an object")
    return message


def _read(peer: socket.socket, size: int, number: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = peer.recv(min(size - len(parts), 2**20))
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerLost(f"worker {number} has stopped ({error.strerror or error})") from None
        if not part:
            raise PeerLost(f"worker {number} has stopped")
        parts += part
    return bytes(parts)
