"""The limits of a server."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server; beyond them, requests are rejected.

    Attributes:
        batch: Maximum number of images in one call of the network.
        workers: Number of batches that are computed at once.
        queue: Maximum number of images that wait; beyond it, the answer is 503 with Retry-After.
        body: Maximum number of bytes of one request; beyond it, 413.
        bodies: Maximum number of bytes of all requests that are being read or answered; beyond it, 503.
        idle: Seconds that a connection may stay without a request, and a body without a byte.
        connections: Maximum number of open connections; beyond it, 503.
    """

    batch: int = 16
    workers: int = min(os.cpu_count() or 1, 4)
    queue: int = 256
    body: int = 32 * 2**20
    bodies: int = 256 * 2**20
    idle: float = 15.0
    connections: int = 1024
