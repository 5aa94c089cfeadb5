"""Shared by several files: a small classifier, its export and its server; what README and docs stand in."""

import os
import shutil
import subprocess
import sys
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


BACKBONE = "MobileNetV2(alpha=0.35)"


@pytest.fixture(scope="session")
def shown_folder(shared, once) -> Path:
    """What the pages stand in: photos/ (56 of ants and bees), run/ that the command line makes of it, other images."""
    return once("shown", lambda root: _shown(shared / "data" / "hymenoptera", root))


def _shown(photos: Path, root: Path) -> None:
    _some(photos / "train", root / "photos" / "train", slice(0, 20))
    _some(photos / "val", root / "photos" / "val", slice(0, 8))
    for i, name in enumerate(("more_photos", "held_out", "large_similar_dataset"), 2):
        _some(photos / "val", root / name, slice(8 * i, 8 * i + 8))
    (root / "new_photos").symlink_to(Path("more_photos") / "ants")
    for name, kind in ("a.jpg", "ants"), ("b.png", "bees"):
        shutil.copy(next((root / "held_out" / kind).iterdir()), root / name)
    line = [sys.executable, "-m", "recipes", "finetune", "photos/", "--backbone", BACKBONE, "--output", "run"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run(line, cwd=root, env=environment, stdout=subprocess.DEVNULL, check=True)
    for seed in range(3):
        recipes.finetune(root / "more_photos", backbone="glyphs", recipe="probe", seed=seed).save(root / f"run-{seed}")


def _some(source: Path, target: Path, which: slice) -> None:
    """Links to some images of each class."""
    for kind in ("ants", "bees"):
        (target / kind).mkdir(parents=True)
        for file in sorted((source / kind).glob("*.jpg"))[which]:
            (target / kind / file.name).symlink_to(file)
