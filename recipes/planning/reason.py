"""Reasons: the facts behind a decision, from which the sentence for a person is rendered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from recipes.core.text import described

_SPEC = re.compile(r"[+,]?(\.\d)?[a-z%]?")


@dataclass(frozen=True)
class Reason:
    """The reason for a decision; `str` returns the sentence.

    Attributes:
        code: Stable name of the decision for programs, such as "plan.few_images"; empty for a sentence that an earlier
            version saved.
        text: The sentence, with the values as replacement fields: "{images} images are too few".
        values: Values of the replacement fields by name, as JSON values.
    """

    code: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return described("Reason", repr(self.code), repr(str(self)))

    def __str__(self) -> str:
        return self.text.format(**self.values) if self.code else self.text

    @classmethod
    def of(cls, saved: str | Mapping[str, Any]) -> "Reason":
        """Return the reason from the output of `asdict` or from a sentence.

        Raises:
            ValueError: If `saved` is neither. Saved files are not trusted, and formatting an arbitrary text could use
                unbounded memory.
        """
        if isinstance(saved, str):
            return cls("", saved)
        code, text, values = saved["code"], saved["text"], saved["values"]
        if not (isinstance(code, str) and isinstance(text, str) and isinstance(values, Mapping)):
            raise ValueError(f"not a reason: {saved!r:.200}")
        for _, name, spec, _ in Formatter().parse(text) if code else ():
            if name is not None and not (name in values and _SPEC.fullmatch(spec or "")):
                raise ValueError(f"not the text of a reason: {text:.200}")
        reason = cls(code, text, values)
        str(reason)
        return reason
