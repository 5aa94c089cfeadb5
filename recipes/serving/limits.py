"""What a server takes at most."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    batch:       images that the network sees at once.
    workers:     batches at once.
    queue:       images that wait; beyond, 503 with Retry-After.
    body:        bytes of one request, 413 beyond.
    bodies:      bytes of all requests that are being read or answered, 503 beyond.
    idle:        seconds that a connection may stay without a request, and a body without a byte.
    connections: open at once, 503 beyond.
    """

    batch: int = 16
    workers: int = min(os.cpu_count() or 1, 4)
    queue: int = 256
    body: int = 32 * 2**20
    bodies: int = 256 * 2**20
    idle: float = 15.0
    connections: int = 1024
