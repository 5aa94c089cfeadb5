"""The processes of one job on several hosts: who they are by TF_CONFIG, and what they tell each other."""

import json
import os
import select
import socket
import struct
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass

from recipes.core.addresses import port_of
from recipes.errors import ClusterError, PeerLost

_WAIT = "RECIPES_PEER_WAIT"  # seconds that a worker waits for the others to come
_LARGEST = 2**32  # bytes of a message
_PAUSE = 0.5  # seconds between two attempts to reach worker 0
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
# a silent host is given up after 25 s, whether it owes an answer (the last, in ms) or not
_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Job:
    """addresses: host:port of all workers; a chief is the first.  number: this one's place among them."""

    addresses: tuple[str, ...]
    number: int


def job_of(environment=os.environ) -> Job | None:
    """What TF_CONFIG says; None where it names no other worker.

    Raises: ClusterError for a TF_CONFIG that is none.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return None

    def wrong(what: str) -> ClusterError:
        return ClusterError(f"TF_CONFIG {what}; expected such as {_EXAMPLE}. It is {text[:500]}")

    try:
        told = json.loads(text)
    except ValueError as error:
        raise wrong(f"is no JSON ({error})") from None
    cluster, task = (told.get(name) if isinstance(told, dict) else None for name in ("cluster", "task"))
    if cluster is None and isinstance(told, dict) and not task:
        return None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise wrong("has no cluster or no task")
    if strange := set(cluster) - {"chief", "worker"}:
        raise wrong(f"has {sorted(strange)} in its cluster, which take no part in this kind of training")
    lists = [cluster.get(kind, []) for kind in ("chief", "worker")]
    chiefs, workers = lists
    if not all(isinstance(part, list) for part in lists) or len(chiefs) > 1:
        raise wrong("has no list of workers")
    addresses = (*chiefs, *workers)
    for address in addresses:
        if port_of(address) is None:
            raise wrong(f"has the address {address!r}, which is no host:port")
    if len(set(addresses)) < len(addresses):
        raise wrong("has one address twice")
    kind, index = task.get("type"), task.get("index")
    among = {"chief": chiefs, "worker": workers}.get(kind)
    if among is None or isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(among):
        raise wrong(f"says that this is {kind} {index}, which its cluster does not have")
    return Job(addresses, index + (len(chiefs) if kind == "worker" else 0)) if len(addresses) > 1 else None


def leads() -> bool:
    """Whether this process is the one that writes: the only one, or worker 0."""
    job = job_of()
    return job is None or job.number == 0


class Peers:
    """Connections between worker 0 and each of the others, by which all is told but gradients and weights.

    At first they meet: worker 0 listens on its address until all have come and said the same `asked`.

    asked: what must be the same everywhere, name → words.

    Raises: ClusterError when not all come in time, or one was asked for something else.
    """

    def __init__(self, job: Job, asked: dict):
        self.number, self.count = job.number, len(job.addresses)
        limit = _seconds_to_wait()
        said = {"worker": self.number, "workers": list(job.addresses), "asked": asked}
        self._sockets = self._gather(job, said, limit) if self.number == 0 else {0: self._call(job, said, limit)}

    def send(self, message: dict) -> None:
        """To all on the other side: from worker 0 to each, from any other to worker 0."""
        for number, peer in self._sockets.items():
            _put(peer, message, number)

    def receive(self, number: int = 0) -> dict:
        """The next message of a worker.

        Raises: PeerLost when there is none to come.
        """
        return _get(self._sockets[number], number)

    def last_words(self, seconds: float) -> tuple[int, dict] | None:
        """Which worker failed and why, if one has said so before it went, or does within so much time."""
        there, end = dict(self._sockets), time.monotonic() + seconds
        while there and (left := end - time.monotonic()) > 0:
            waiting, _, _ = select.select([*there.values()], [], [], left)
            for number in [number for number, peer in there.items() if peer in waiting]:
                try:
                    if "kind" in (told := self.receive(number)):
                        return number, told
                except PeerLost:
                    del there[number]
        return None

    def lost(self, seconds: float) -> bool:
        """Whether one goes within so much time."""
        waiting, _, _ = select.select([*self._sockets.values()], [], [], seconds)
        try:
            return any(not peer.recv(1, socket.MSG_PEEK) for peer in waiting)
        except OSError:
            return True

    @property
    def others(self) -> list[int]:
        return sorted(self._sockets)

    def close(self) -> None:
        for peer in self._sockets.values():
            peer.close()

    def _gather(self, job: Job, said: dict, limit: float) -> dict[int, socket.socket]:
        port, end, found = port_of(job.addresses[0]), time.monotonic() + limit, {}
        both = socket.has_dualstack_ipv6()
        try:
            listener = socket.create_server(
                ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
            )
        except OSError as error:
            raise ClusterError(f"worker 0 cannot listen on port {port} of TF_CONFIG: {error.strerror}") from None
        with listener:
            while len(found) < self.count - 1:
                listener.settimeout(max(0.01, end - time.monotonic()))
                try:
                    peer, _ = listener.accept()
                    peer.settimeout(5)
                    told = _get(peer, -1)
                    found[told["worker"]] = _kept(peer), told
                except TimeoutError:
                    if time.monotonic() >= end:
                        missing = [f"{n} ({job.addresses[n]})" for n in range(1, self.count) if n not in found]
                        text = f"after {limit:.0f} s worker {', '.join(missing)} has not come"
                        text += f": give the same command on every host; {_WAIT}=SECONDS waits longer"
                        raise self._refuse(found, text) from None
                except (PeerLost, KeyError, ValueError, zlib.error, OSError):
                    peer.close()  # a stranger, or what is left of a job that has ended
        differences = [
            _difference(n, said, told) for n, (_, told) in sorted(found.items()) if told != said | {"worker": n}
        ]
        if differences:
            raise self._refuse(found, f"the workers were not given the same command: {'; '.join(differences)}")
        for number, (peer, _) in found.items():
            _put(peer, {"go": True}, number)
        return {number: peer for number, (peer, _) in found.items()}

    def _refuse(self, found: dict, text: str) -> ClusterError:
        for number, (peer, _) in found.items():
            with suppress(PeerLost):  # it has gone already
                _put(peer, {"refused": text}, number)
            peer.close()
        return ClusterError(text)

    def _call(self, job: Job, said: dict, limit: float) -> socket.socket:
        host, port = job.addresses[0].rsplit(":", 1)
        end, why = time.monotonic() + limit, "no answer"
        while time.monotonic() < end:
            try:
                peer = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
                _put(peer, said, 0)
                peer.settimeout(max(1, end - time.monotonic()))
                answer = _get(peer, 0)
            except (PeerLost, ValueError, zlib.error, OSError) as error:
                why = error
                time.sleep(_PAUSE)
                continue
            if "refused" in answer:
                raise ClusterError(answer["refused"])
            return _kept(peer)
        raise ClusterError(
            f"after {limit:.0f} s worker 0 at {job.addresses[0]} cannot be reached ({why}): give the same command on "
            f"every host; {_WAIT}=SECONDS waits longer"
        )


def _seconds_to_wait() -> float:
    told = os.environ.get(_WAIT, "300")
    try:
        seconds = float(told)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 10**7:
        raise ClusterError(f"{_WAIT} is {told!r}; expected seconds, such as 300")
    return seconds


def _kept(peer: socket.socket) -> socket.socket:
    """For the whole job: without a time limit, but noticing a host that has gone."""
    peer.settimeout(None)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return peer


def _difference(number: int, ours: dict, theirs: dict) -> str:
    if theirs.get("workers") != ours["workers"]:
        return f"worker {number} has {theirs.get('workers')} in TF_CONFIG, worker 0 {ours['workers']}"
    mine, its = ours["asked"], theirs.get("asked", {})
    parts = [f"{k} is {mine.get(k)!r} at worker 0 and {its.get(k)!r} at worker {number}" for k in {**mine, **its}
             if mine.get(k) != its.get(k)]  # fmt: skip
    return "; ".join(parts)


def _put(peer: socket.socket, message: dict, number: int) -> None:
    packed = zlib.compress(json.dumps(message, default=lambda number: number.item()).encode(), 1)
    try:
        peer.sendall(struct.pack(">Q", len(packed)) + packed)
    except OSError as error:
        raise PeerLost(f"worker {number} is gone ({error.strerror or error})") from None


def _get(peer: socket.socket, number: int) -> dict:
    (size,) = struct.unpack(">Q", _read(peer, 8, number))
    if size > _LARGEST:
        raise ValueError(f"a message of {size} bytes")
    message = json.loads(zlib.decompress(_read(peer, size, number)))
    if not isinstance(message, dict):
        raise ValueError("no message")
    return message


def _read(peer: socket.socket, size: int, number: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = peer.recv(min(size - len(parts), 2**20))
        except TimeoutError:
            raise
        except OSError as error:
            raise PeerLost(f"worker {number} is gone ({error.strerror or error})") from None
        if not part:
            raise PeerLost(f"worker {number} is gone")
        parts += part
    return bytes(parts)
