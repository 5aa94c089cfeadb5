"""The time limit of a job."""

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """A limit on wall-clock time; unlimited by default.

    Attributes:
        end: Time of `time.monotonic()` at which the budget ends, in seconds; infinite without a limit.

    Example:
        >>> budget = Budget.of(600.0)
        >>> budget.allows(30.0)
        True
    """

    end: float = math.inf

    @classmethod
    def of(cls, seconds: float | None, began: float | None = None) -> "Budget":
        """Return the budget that ends `seconds` after `began` (default: now); unlimited for None."""
        if seconds is None:
            return cls()
        return cls((time.monotonic() if began is None else began) + seconds)

    @property
    def limited(self) -> bool:
        """Whether the budget has a limit."""
        return math.isfinite(self.end)

    @property
    def left(self) -> float:
        """Remaining seconds: negative after the end, infinite without a limit."""
        return self.end - time.monotonic()

    @property
    def overrun(self) -> float:
        """Seconds by which the limit was exceeded; 0 within it."""
        return max(0.0, -self.left)

    def allows(self, seconds: float) -> bool:
        """Return whether work that takes this many seconds would end within the budget."""
        return seconds <= self.left

    def share(self, fraction: float) -> "Budget":
        """Return the budget of a part of the job that may take `fraction` of the remaining time."""
        return Budget.of(self.left * fraction) if self.limited else self


NO_LIMIT = Budget()
