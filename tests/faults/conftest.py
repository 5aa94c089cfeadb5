"""Trainings in processes of their own, forked from one that has imported everything and used nothing."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import victim
from makers import arrays

TESTS = Path(__file__).resolve().parents[1]


class Victims:
    """Starts them, each with its output folder and its log beside it."""

    def __init__(self, root: Path):
        self.root, self.cache, self.images = root, root / "cache", arrays(14)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["victim"])

    def start(self, name: str, *, dataset=None, **how) -> multiprocessing.Process:
        dataset = self.images if dataset is None else dataset
        arguments = (dataset, str(self.root / name), str(self.root / f"{name}.log"))
        process = self.context.Process(target=victim.main, args=arguments, kwargs={"cache": self.cache, **how})
        process.start()
        return process

    def run(self, name: str, **how) -> int:
        """The exit code."""
        process = self.start(name, **how)
        process.join()
        return process.exitcode

    def export(self, name: str, directory: Path, **how) -> int:
        """The exit code."""
        arguments = (self.root / name, directory, self.images)
        process = self.context.Process(target=victim.export, args=arguments, kwargs=how)
        process.start()
        process.join()
        return process.exitcode

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")

    def outcome(self, name: str) -> dict:
        """What came out."""
        return json.loads(self.log(name).splitlines()[-1])


@pytest.fixture(scope="session")
def victims(tmp_path_factory):
    path = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)  # of the process that they are forked from
    return Victims(tmp_path_factory.mktemp("victims"))


@pytest.fixture(scope="session")
def undisturbed(victims):
    """What comes out where nothing happens."""
    assert victims.run("undisturbed", every_step=False) == 0, victims.log("undisturbed")
    return victims.outcome("undisturbed")
