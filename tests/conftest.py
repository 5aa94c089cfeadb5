"""Shared by all tests: where ../shared lies, and ImageNet weights from it."""

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("assertions")

SHARED = Path(__file__).resolve().parents[2] / "shared"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if SHARED.is_dir() and "KERAS_HOME" not in os.environ:  # Keras reads it once, when it is imported
    HOME = tempfile.TemporaryDirectory(prefix="keras-home-")  # kept: it ends with the process
    os.environ["KERAS_HOME"] = HOME.name
    (Path(HOME.name) / "models").symlink_to(SHARED / "weights")


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the slow tests, too, but not those that take minutes")


def pytest_collection_modifyitems(config, items):
    left_out = {name for name in ("slow", "minutes") if name not in config.option.markexpr}
    left_out -= {"slow"} if config.option.all else set()
    config.hook.pytest_deselected(items=[item for item in items if left_out & set(item.keywords)])
    items[:] = [item for item in items if not left_out & set(item.keywords)]
    items.sort(key=lambda item: ("slow" not in item.keywords, "shared" not in item.keywords))  # the longest first
    if not SHARED.is_dir():
        skip = pytest.mark.skip(reason=f"needs {SHARED} (real photos and ImageNet weights)")
        for item in items:
            if "shared" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED


@pytest.fixture(autouse=True)
def seeded():
    """Networks of random weights are the same in every run of a test."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory):
    """Features that a test extracts are not kept beyond the tests."""
    os.environ["RECIPES_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """once(name, make): the folder of that name after `make(folder)`, which one of the workers does for all of them."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(name: str, make) -> Path:
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (done := root / f"{name}.done").exists():
                shutil.rmtree(root / name, ignore_errors=True)
                (root / name).mkdir()
                make(root / name)
                done.touch()
        return root / name

    return made


@pytest.fixture
def rendered():
    """Render the log as public functions do, for tests that call what these call."""
    import logging

    from recipes.core.output import TerminalRenderer

    logger, handler = logging.getLogger("recipes"), TerminalRenderer()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)
