"""What goes wrong while a network is trained: each a real process in which it does go wrong."""

import math
import os
import re
import subprocess
import sys
from functools import partial

import pytest
from makers import folder, png, small_network
from victim import Poisoned, SmallMemory, fill_disk, remove, spoil

import recipes


@pytest.fixture
def photos(victims, tmp_path):
    """The images of the other trainings as files."""
    for i, (image, name) in enumerate(zip(*victims.images, strict=True)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{i:03}.png").write_bytes(png(image))
    return tmp_path


@pytest.mark.slow
def test_a_loss_that_is_not_finite_once(victims, undisturbed):
    assert victims.run("spoiled", at=(7, spoil)) == 0
    outcome = victims.outcome("spoiled")
    reason = outcome["reasons"]["training.slower"]
    assert reason["divisor"] == 2 and reason["what"].endswith("at step 3 of epoch 2")
    assert len(outcome["history"]["loss"]) == 4 and all(map(math.isfinite, outcome["history"]["loss"]))
    assert outcome["history"]["loss"][0] == undisturbed["history"]["loss"][0]


@pytest.mark.minutes
def test_a_loss_that_is_not_finite_again_and_again(victims):
    assert victims.run("poisoned", loss=Poisoned) == 1
    log = victims.log("poisoned")
    assert all(f"with 1/{share} of the learning rate" in log for share in (2, 4, 8))
    assert "TrainingError: the loss became nan at step" in log
    assert "The batch contains images[" in log and "largest gradient norms at the last good weights are " in log
    assert not (victims.root / "poisoned").exists()  # nothing to go on from


@pytest.mark.slow
def test_memory_that_runs_out(victims):
    """The same weights as by the recipe that asks for four parts."""
    both = victims.start("small", memory=SmallMemory), victims.start("parts", accumulate=4)
    for process in both:
        process.join()
    small, parts = victims.outcome("small"), victims.outcome("parts")
    assert small["weights"] == parts["weights"] and small["history"] == parts["history"]
    assert small["reasons"]["training.memory"] == {"batch": 8, "parts": 4}


@pytest.mark.minutes
def test_many_files_that_vanish(victims, undisturbed, photos):
    """They are an error, and once they are back the run goes on as if nothing had been."""
    files = sorted(photos.glob("*/*.png"))
    contents = {file: file.read_bytes() for file in files}
    assert victims.run("many", dataset=str(photos), at=(7, partial(remove, files[::3]))) == 1
    assert re.search(r"\d+ images have vanished since the audit", victims.log("many"))
    assert "restore the files and run the same command again" in victims.log("many")
    assert victims.run("many", dataset=str(photos)) == 1
    assert "14 missing" in victims.log("many").rsplit("DataError", 1)[-1]
    for file, content in contents.items():
        file.write_bytes(content)
    assert victims.run("many", dataset=str(photos)) == 0
    assert victims.outcome("many") == undisturbed


@pytest.mark.slow
def test_a_file_that_vanishes(victims, photos):
    """It is named and left out."""
    files = sorted(photos.glob("*/*.png"))
    assert victims.run("one", dataset=str(photos), at=(7, partial(remove, files[:1]))) == 0
    outcome = victims.outcome("one")
    assert any(finding.startswith(f"vanished (1): {files[0]}") for finding in outcome["findings"])
    assert outcome["reasons"]["training.vanished"]["count"] == 1
    assert len(outcome["history"]["loss"]) == 4


@pytest.mark.slow
def test_a_full_disk(victims, undisturbed):
    """The training goes on, and what came out is in memory."""
    assert victims.run("full", at=(5, partial(fill_disk, 16_000))) == 0, victims.log("full")
    log = victims.log("full")
    assert log.count("first.npz cannot be written (File too large). Training continues") == 1
    assert "The result is only in memory; save it with result.save(folder)" in log
    assert victims.outcome("full") == undisturbed
    assert (victims.root / "full" / ".state" / "first.npz").is_file()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.slow
def test_the_command_line_saves_as_soon_as_there_is_room(victims, small_disk, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    folder(place / "photos", 5)
    small_network(place / "small.keras")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1000 * 2**10))
    command = [sys.executable, "-u", "-m", "recipes", "finetune", "photos", "--backbone", "small.keras"]
    command += ["--recipe", "probe", "--output", small_disk / "run"]
    environment = {**os.environ, "RECIPES_CACHE": str(victims.cache)}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=place, env=environment, text=True, **output) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Trying again in 2 s" in line:
                ballast.unlink()
    assert process.returncode == 0, "".join(printed)
    assert "No space left on device" in "".join(printed)
    assert recipes.load(small_disk / "run").validation
    assert (small_disk / "run" / "report.html").is_file() and not (small_disk / "run" / ".state").exists()


@pytest.mark.slow
def test_an_export_that_is_killed(victims, undisturbed, tmp_path):
    """Nothing that a server would load is there, and nothing of it is left after the next export."""
    serving = tmp_path / "serving"
    assert victims.export("undisturbed", serving, kill=("recipes.export.export.prove", 1)) == -9
    (left,) = (path for path in serving.iterdir() if path.is_dir())
    assert left.name.startswith(".new-1-") and any(left.iterdir())
    assert victims.export("undisturbed", serving) == 0
    assert [version.name for version in serving.iterdir()] == ["1"]
