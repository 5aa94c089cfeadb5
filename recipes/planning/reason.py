"""Reasons: the facts behind a decision, rendered as a sentence where a person reads them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reason:
    """Why a decision was made; `str` returns the sentence.

    Attributes:
        code: Stable name of the decision for programs, such as "plan.few_images"; empty for a sentence that an
            earlier version of the library has saved.
        text: The sentence, with the values as replacement fields: "{images} images are too few".
        values: JSON values by name.
    """

    code: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.text.format(**self.values) if self.code else self.text

    @classmethod
    def of(cls, saved: str | Mapping[str, Any]) -> "Reason":
        """Return the reason that `asdict` has described, or that of a sentence."""
        return cls("", saved) if isinstance(saved, str) else cls(**saved)
