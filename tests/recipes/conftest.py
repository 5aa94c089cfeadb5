"""One small classifier, its export and its server, shared by the tests of serving."""

from pathlib import Path
from typing import NamedTuple

import pytest
from makers import folder, small_network
from serving import served

import recipes


class Exported(NamedTuple):
    """A Result, the folder of photos it was made of, and the folder of versions that it was exported to."""

    result: recipes.Result
    photos: Path
    versions: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """(Result, folder of photos)."""
    photos = folder(tmp_path_factory.mktemp("photos"))
    return recipes.finetune(photos, backbone=small_network(), recipe=recipes.adjusted("probe", size=48)), photos


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Exported:
    """Exported by the defaults, loaded again from its run."""
    result, photos = trained
    root = tmp_path_factory.mktemp("exported")
    result.save(root / "run")
    assert recipes.load(root / "run").export(root / "flowers") == root / "flowers" / "1"
    return Exported(result, photos, root / "flowers")


@pytest.fixture(scope="session")
def server(exported):
    """(address, process) of a server that is quick to lose patience: 2 s, 1 MiB."""
    with served(exported.versions, "--idle", "2", "--body", "1") as (address, process):
        yield address, process
