"""Shared by several files: a small classifier, its export and its server; what README and docs stand in."""

import shutil
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
def trained(once):
    """(Result, folder of photos)."""
    root = once("trained", _trained)
    return recipes.load(root / "run"), root / "photos"


def _trained(root: Path) -> None:
    recipe = recipes.adjusted("probe", size=48)
    recipes.finetune(folder(root / "photos"), backbone=small_network(), recipe=recipe).save(root / "run")


@pytest.fixture(scope="session")
def exported(trained, once) -> Exported:
    """Exported by the defaults."""
    result, photos = trained
    root = once("exported", lambda root: result.export(root / "flowers"))
    assert (root / "flowers" / "1").is_dir()
    return Exported(result, photos, root / "flowers")


@pytest.fixture(scope="session")
def server(exported):
    """(address, process) of a server that is quick to lose patience: 2 s, 1 MiB."""
    with served(exported.versions, "--idle", "2", "--body", "1") as (address, process):
        yield address, process


@pytest.fixture(scope="session")
def shown_folder(once) -> Path:
    """What the pages stand in: photos/, run/ that was made of them, other images, other runs."""
    return once("shown", _shown)


@pytest.fixture(scope="session")
def shown_photos(shared, once) -> Path:
    """The same with 56 real photos, and ImageNet weights."""
    return once("shown_photos", lambda root: _shown(root, shared / "data" / "hymenoptera"))


def _shown(root: Path, real: Path | None = None) -> None:
    backbone = "MobileNetV2(alpha=0.35)" if real else "glyphs"
    for i, name in enumerate(("photos", "more_photos", "held_out", "large_similar_dataset")):
        if not real:
            folder(root / name, 12 if name == "photos" else 4, seed=i)
        elif name == "photos":
            _links(real / "train", root / name / "train", slice(0, 20))
            _links(real / "val", root / name / "val", slice(0, 8))
        else:
            _links(real / "val", root / name, slice(8 * i, 8 * i + 8))
    one, other, *_ = sorted((root / "held_out").iterdir())
    (root / "new_photos").symlink_to(Path("more_photos") / one.name)
    for name, kind in ("a.jpg", one), ("b.png", other):
        shutil.copy(next(kind.iterdir()), root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        recipes.finetune("photos/", backbone=backbone, output="run")
    for seed in range(2):
        shutil.copytree(root / "run", root / f"run-{seed}")


def _links(source: Path, target: Path, which: slice) -> None:
    """To some images of each class."""
    for kind in ("ants", "bees"):
        (target / kind).mkdir(parents=True)
        for file in sorted((source / kind).glob("*.jpg"))[which]:
            (target / kind / file.name).symlink_to(file)
