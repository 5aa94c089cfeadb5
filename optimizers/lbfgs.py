"""Estimate curvature from the last few steps by L-BFGS, in O(memory · n)."""

from collections import deque
from collections.abc import Callable

import numpy as np


class LBFGS:
    """Estimate the inverse Hessian from the last `memory` pairs s = Δx, y = Δgradient (Nocedal, 1980).

    Args:
        memory: number of pairs.
        preconditioner: v → P v, where P is a fixed symmetric positive definite approximation of the inverse Hessian,
            from which the recursion starts; default: the identity. Preconditioning is equivalent to minimising over
            P^(-1/2) x.
        dtype: type of the pairs; float32 halves their memory, and only very tight tolerances need float64.
    """

    def __init__(
        self,
        memory: int = 10,
        preconditioner: Callable[[np.ndarray], np.ndarray] | None = None,
        dtype: type = np.float64,
    ):
        if memory < 1:
            raise ValueError(f"memory must be at least 1 pair. Got {memory}.")
        self.preconditioner = preconditioner or (lambda v: v)
        self.pairs: deque = deque(maxlen=memory)
        self.dtype, self.scale = np.dtype(dtype), 1.0

    def reset(self) -> None:
        """Discard all pairs."""
        self.pairs.clear()
        self.scale = 1.0

    def update(self, s: np.ndarray, y: np.ndarray) -> None:
        """Store the pair of a step; skip a step without positive curvature."""
        curvature = s @ y
        if curvature > 1e-12 * np.linalg.norm(s) * np.linalg.norm(y):
            s, y = s.astype(self.dtype), y.astype(self.dtype)
            self.pairs.append((s, y, self.dtype.type(1 / curvature)))
            self.scale = self.dtype.type(curvature / (y @ self.preconditioner(y)))

    def direction(self, x: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, float]:
        """Return −H · gradient and the first step size to try.

        The step size is 1 or, before any curvature pair exists, gives a step of at most unit L1 norm.
        """
        q = gradient.astype(self.dtype)
        weights = []
        for s, y, inverse in reversed(self.pairs):
            weights.append(inverse * (s @ q))
            q -= weights[-1] * y
        q = self.scale * self.preconditioner(q)
        for (s, y, inverse), weight in zip(self.pairs, reversed(weights), strict=True):
            q += (weight - inverse * (y @ q)) * s
        q = q.astype(np.float64)
        first = 1.0 if self.pairs else min(1.0, 1 / max(np.abs(q).sum(), 1e-300))
        return -q, first
