"""Processes on loopback that train together, each as a host would: the same command, and its own TF_CONFIG."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from makers import addresses, folder
from worker import recorded

import recipes
import recipes.runs.recipe_file
import recipes.training.loop.attempt
from recipes.planning.ready_made import from_scratch
from recipes.planning.recipe_json import save_recipe

TESTS = Path(__file__).resolve().parents[1]
EPOCH, BATCH = 18, 7  # images
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="several hosts need TensorFlow")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, a network without noise, and a recipe whose outcome is kept whatever it is worth."""
    from dataclasses import replace

    place = tmp_path_factory.mktemp("place")
    folder(place / "photos", 7)
    images = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(images)
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    keras.Model(images, x, name="plain").save(place / "plain.keras")
    recipe = replace(from_scratch(32), epochs=2, batch_size=BATCH, learning_rate=1e-3, averaging=0.9)
    save_recipe(recipe, place / "recipe.json")
    return place


class Workers:
    """The processes of a job, and their output.

    photos: what they read.  more: of the last one's environment.
    """

    def __init__(self, place: Path, count: int, name: str, photos: str = "photos", **more: str):
        self.place, self.name, self.addresses, self.photos = place, name, addresses(count), photos
        self.processes, self.more = [], more
        for number in range(count):
            self.start(number)

    def start(self, number: int, place: Path | None = None) -> subprocess.Popen:
        """place: where, if not where the others are."""
        task = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": number}}
        environment = {
            **os.environ, "TF_CONFIG": json.dumps(task), "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3",
            "RECIPES_CACHE": str(self.place / f"cache{number}"),
            "RECIPES_TEST_SEEN": str(self.place / f"{self.name}.{number}.seen"),
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        } | (self.more if number == len(self.addresses) - 1 else {})  # fmt: skip
        victim = self.place / f"{self.name}.victim"
        command = [sys.executable, "-u", TESTS / "worker.py", victim, "2", "finetune", self.photos, "--backbone"]
        command += ["plain.keras", "--recipe", "recipe.json", "--output", self.name]
        with open(self.place / f"{self.name}.{number}.log", "a") as log:
            process = subprocess.Popen(command, cwd=place or self.place, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self, number: int) -> str:
        return (self.place / f"{self.name}.{number}.log").read_text(errors="replace")


@contextmanager
def workers(*arguments, **how):
    """All of them are gone in the end."""
    started = Workers(*arguments, **how)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def alone(place):
    """The weights that one process finds."""
    recipe = recipes.runs.recipe_file.load_recipe(place / "recipe.json")
    with pytest.MonkeyPatch.context() as patch:
        noted = recorded(recipes.training.loop.attempt.training_batches, place / "alone.0.seen")
        patch.setattr(recipes.training.loop.attempt, "training_batches", noted)
        result = recipes.finetune(place / "photos", backbone=str(place / "plain.keras"), recipe=recipe)
    assert len(result.history["loss"]) == 2
    return result


def assert_alone(place, name: str, alone):
    """The run is what one process finds."""
    found = recipes.load(place / name)
    for a, b in zip(found.model.get_weights(), alone.model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert found.validation.accuracy == alone.validation.accuracy and found.validation.n == alone.validation.n
    for metric, values in alone.history.items():
        np.testing.assert_allclose(found.history[metric], values, atol=1e-4, err_msg=metric)


def assert_each_once(place, name: str, count: int, images: int):
    """An epoch: the workers have seen as many images as they say, in their last processes, and these are the last ones
    that one process sees in its two epochs, which are never the same twice."""
    one = np.loadtxt(place / "alone.0.seen")
    parts = [np.loadtxt(place / f"{name}.{number}.seen") for number in range(count)]
    assert np.diff(np.sort(one)).min() > 3e-4  # no two alike, up to rounding
    assert min(map(len, parts)) >= images // (2 * count)
    np.testing.assert_allclose(np.sort(np.concatenate(parts)), np.sort(one[-images:]), atol=1e-4)


@pytest.mark.slow
def test_two_workers_find_what_one_process_finds(place, alone):
    with workers(place, 2, "two") as two:
        for number, process in enumerate(two.processes):
            assert process.wait(300) == 0, two.log(number)[-3000:]
    assert_alone(place, "two", alone)
    assert_each_once(place, "two", 2, 2 * EPOCH)
    assert "its weights differ from worker 0's by at most 0" in two.log(1)
    assert "worker 0 has written the run" in two.log(1)
    assert not (place / "two" / ".state").exists()


def disturb(job, number: int, how: signal.Signals):
    (job.place / f"{job.name}.victim").write_text(f"{job.processes[number].pid} {int(how)}")


def assert_goes_on(job, killed: int):
    """Once the killed worker was given its command again, and nothing else."""
    disturb(job, killed, signal.SIGKILL)
    assert job.processes[killed].wait(300) == -9, job.log(0)[-3000:]
    again = job.start(killed)
    others = [number for number in range(len(job.addresses)) if number != killed]
    for process, number in [(again, killed), *((job.processes[number], number) for number in others)]:
        assert process.wait(300) == 0, job.log(number)[-3000:]
    assert all("Restarting this worker automatically" in job.log(number) for number in others)
    assert f"resuming the run in {job.name}" in job.log(0)


@pytest.mark.slow
def test_a_worker_is_killed_and_started_again(place, alone):
    """After two of the three updates of the first epoch: what is left of it, and all of the second, are seen once."""
    with workers(place, 3, "three") as three:
        assert_goes_on(three, killed=2)
    assert_alone(place, "three", alone)
    assert_each_once(place, "three", 3, EPOCH % BATCH + EPOCH)
    assert all("its weights differ from worker 0's by at most 0" in three.log(number) for number in (1, 2))


@pytest.mark.minutes
def test_worker_0_is_killed_and_started_again(place, alone):
    with workers(place, 2, "first") as first:
        assert_goes_on(first, killed=0)
    assert_alone(place, "first", alone)


@pytest.mark.minutes
def test_a_signal_at_worker_0_stops_all_and_other_images_are_refused(place, alone):
    with workers(place, 2, "stopped") as stopped:
        disturb(stopped, 0, signal.SIGTERM)
        assert [process.wait(300) for process in stopped.processes] == [143, 143], stopped.log(0)[-3000:]
        assert "run the same command again to resume" in stopped.log(0)
        elsewhere = place / "elsewhere"
        shutil.copytree(place / "photos", elsewhere / "photos")
        next(elsewhere.rglob("*.jpg")).unlink()
        for name in ("plain.keras", "recipe.json"):
            shutil.copy(place / name, elsewhere)
        refused = stopped.start(0), stopped.start(1, elsewhere)
        assert [process.wait(300) for process in refused] == [2, 2], stopped.log(0)[-3000:]
        assert all("the workers do not have the same images" in stopped.log(number) for number in (0, 1))
        again = stopped.start(0), stopped.start(1)
        assert [process.wait(300) for process in again] == [0, 0], stopped.log(0)[-3000:]
    assert_alone(place, "stopped", alone)


@pytest.mark.minutes
def test_three_workers_read_a_pack_and_end_equal(place, alone):
    """Undisturbed; the weights are those of one process that reads the folder."""
    recipes.pack(place / "photos", place / "packed", shards=2)
    with workers(place, 3, "packs", photos="packed") as three:
        for number, process in enumerate(three.processes):
            assert process.wait(300) == 0, three.log(number)[-3000:]
    assert_alone(place, "packs", alone)
    assert_each_once(place, "packs", 3, 2 * EPOCH)
    assert all("its weights differ from worker 0's by at most 0" in three.log(number) for number in (1, 2))


@pytest.mark.minutes
@pytest.mark.parametrize("count", [2, 3])
def test_memory_that_runs_out_at_another_worker_ends_all_with_the_reason(place, count):
    with workers(place, count, f"full{count}", RECIPES_TEST_MEMORY="3") as full:
        assert [process.wait(300) for process in full.processes] == [2] * count, full.log(0)[-3000:]
    for number in range(count):
        assert "accumulate=2) to compute each batch" in full.log(number), full.log(number)[-3000:]
        assert "Restarting this worker automatically" not in full.log(number)
