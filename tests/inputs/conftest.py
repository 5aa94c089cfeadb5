"""Fixtures of the tests of tables."""

import pytest
from tables import NAMES


@pytest.fixture
def place(tmp_path):
    """A folder with four files that have an image's name; loading does not open them."""
    for name in NAMES:
        (tmp_path / name).write_bytes(b"x")
    return tmp_path
