"""Assertions that many tests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath

import pytest

from recipes import RecipesError


class Ending:
    """Equal to every text or path that ends with this text."""

    def __init__(self, text: str):
        self.text = text

    def __eq__(self, other):
        return isinstance(other, str | PathLike) and fspath(other).endswith(self.text)

    __hash__ = None

    def __repr__(self):
        return f"'…{self.text}'"


@contextmanager
def rejects(
    kind: type[RecipesError], code: str, *, match: str | None = None, **attributes: object
) -> Iterator[pytest.ExceptionInfo]:
    """Assert that the block raises an error of this class with this code and these attributes.

    Args:
        kind: The class of the error.
        code: Its stable name.
        match: A regular expression, only where the wording itself is tested: that the message says what to do.
        **attributes: Attributes of the error. A path is equal to its text.
    """
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert caught.value.code == code
    found = {name: getattr(caught.value, name, "no such attribute") for name in attributes}
    assert _with_text(found) == _with_text(attributes)


def _with_text(values: dict[str, object]) -> dict[str, object]:
    """Return values in which a path is its text."""
    return {name: fspath(value) if isinstance(value, PathLike) else value for name, value in values.items()}
