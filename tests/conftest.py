"""Shared by all tests: where ../shared lies, and ImageNet weights from it."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_collection_modifyitems(config, items):
    if "slow" not in config.option.markexpr:
        skip = pytest.mark.skip(reason="slow: pytest -m slow")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)
    if not SHARED.is_dir():
        skip = pytest.mark.skip(reason=f"needs {SHARED} (real photos and ImageNet weights)")
        for item in items:
            if "shared" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    """Features that a test extracts are not kept beyond the tests."""
    os.environ["RECIPES_CACHE"] = str(tmp_path_factory.mktemp("cache"))
