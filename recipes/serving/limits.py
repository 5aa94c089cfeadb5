"""The limits of a server."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Hold the limits of a server, beyond which requests are rejected.

    Attributes:
        batch: Maximum number of images in one call of the network.
        workers: Number of batches that are computed at once.
        queue: Maximum number of waiting images; beyond it, the answer is 503 with Retry-After.
        body: Maximum bytes of one request's body; beyond it, the answer is 413.
        bodies: Maximum bytes of the bodies of all requests in progress; beyond it, the answer is 503.
        idle: Seconds after which a connection without a request, or a body without new bytes, is closed.
        connections: Maximum number of open connections; beyond it, the answer is 503.
    """

    batch: int = 16
    workers: int = min(os.cpu_count() or 1, 4)
    queue: int = 256
    body: int = 32 * 2**20
    bodies: int = 256 * 2**20
    idle: float = 15.0
    connections: int = 1024
