"""Batches that other processes prepare are those that this one would have made, whoever dies meanwhile."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects
from makers import arrays, folder, small_network
from typer.testing import CliRunner

import augment
import recipes
from recipes import WorkerError
from recipes.cli import app
from recipes.data.sources import load
from recipes.planning.ready_made import from_scratch
from recipes.training.batches import training_batches
from recipes.training.input.server import InputWorker
from recipes.training.input.stream import Remote
from recipes.training.input.turns import Turns
from recipes.training.input.workers import InputWorkers
from recipes.training.loop.failures import reading_failed

POLICY = augment.Policy(size=24, short_side=(24, 32), rotate=10, pca=0.1)
MIXED = replace(POLICY, mixup=0.2)
NEW = [sys.executable, "-m", "recipes", "input-worker", "--host", "localhost", "--port"]


def free_ports() -> int:
    """A free port whose next one is free too."""
    while True:
        with closing(socket.socket()) as first, closing(socket.socket()) as second:
            first.bind(("", 0))
            try:
                second.bind(("", first.getsockname()[1] + 1))
            except (OSError, OverflowError):
                continue
            return first.getsockname()[1]


class Process:
    """An input worker in a process of its own."""

    def __init__(self, port: int | None = None, **options):
        self.port = port or free_ports()
        self.process = subprocess.Popen([*NEW, str(self.port)], stdout=subprocess.PIPE, text=True, **options)
        self.said = [self.process.stdout.readline() for _ in range(2)]
        self.address = f"localhost:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("photos"), per_class=10)


@pytest.fixture(scope="module")
def here():
    """Two input workers in this process: nothing of the trainer's reaches them but by their ports."""
    return [InputWorker("localhost", 0) for _ in range(2)]


def recipe(epochs: int = 2, policy: augment.Policy = POLICY):
    return replace(from_scratch(24, 30), epochs=epochs, batch_size=4, policy=policy, accumulate=1)


def pulled(data, recipe, **at) -> list:
    return [(x.numpy(), y.numpy()) for x, y in training_batches(data, recipe, seed=5, **at)]


def assert_same(first, second):
    assert len(first) == len(second)
    for pair, other in zip(first, second, strict=True):
        for a, b in zip(pair, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("size", "batch", "count"), [(10, 4, 2), (10, 4, 3), (12, 4, 2), (3, 4, 2), (9, 1, 4), (1, 5, 3)]
)
def test_turns_are_the_epoch_dealt_out(size, batch, count):
    whole = augment.Source(size, lambda index: (index, index))
    epoch = [int(whole.index(tf.constant(p, tf.int64), 3, seed=1, shuffle=True)) for p in range(size)]
    batches = [epoch[start : start + batch] for start in range(0, size, batch)]
    for turn in range(count):
        mine = Turns.of(whole, turn, count, batch)
        found = [int(mine.index(tf.constant(p, tf.int64), 3, seed=1, shuffle=True)) for p in range(mine.size)]
        assert found == [index for batch in batches[turn::count] for index in batch]


@pytest.fixture(scope="module")
def local(photos):
    """Two epochs as this process makes them; mixed images have partners."""
    return pulled(load(photos).train, recipe(policy=MIXED))


@pytest.mark.slow
def test_the_same_batches_in_the_same_order(photos, here, local):
    """From a folder named by a relative path."""
    data = InputWorkers([worker.address for worker in here]).checked(load(os.path.relpath(photos)).train)
    assert len(local) == 16
    assert_same(local, pulled(data, recipe(policy=MIXED)))


@pytest.mark.slow
def test_resumed_from_a_pack(photos, here, local, tmp_path):
    recipes.pack(photos, tmp_path / "packed", shards=2)
    data = InputWorkers([here[0].address]).checked(load(tmp_path / "packed").train)
    assert_same(local[11:], pulled(data, recipe(policy=MIXED), start=1, first_batch=3))


@pytest.mark.minutes
def test_arrays_travel_too(here):
    data = load(arrays(5)).train
    assert_same(pulled(data, recipe()), pulled(InputWorkers([here[0].address]).checked(data), recipe()))


@pytest.mark.parametrize(
    ("given", "code", "value"),
    [
        ("localhost:5050", "worker.address", "localhost:5050"),
        (["localhost"], "worker.address", "localhost"),
        (["http://localhost:5050"], "worker.address", "http://localhost:5050"),
        (["localhost:99999"], "worker.address", "localhost:99999"),
        (["a:1", "a:1"], "worker.duplicate", ("a:1", "a:1")),
    ],
)
def test_addresses(given, code, value):
    with rejects(WorkerError, code, value=value):
        InputWorkers(given)


def test_nobody_answers(photos):
    port = free_ports()
    remedy = f"recipes input-worker --port {port}"
    with rejects(WorkerError, "worker.silent", addresses=[f"localhost:{port}"], match=remedy):
        recipes.finetune(photos, input_workers=[f"localhost:{port}"])


def test_the_option(photos):
    done = CliRunner().invoke(app, ["finetune", str(photos), "--input-workers", "localhost:1,nonsense"])
    assert isinstance(done.exception, WorkerError) and done.exception.value == "nonsense"


def test_a_port_that_is_taken(here):
    for port in (here[0].port, here[0].port - 1):
        with rejects(WorkerError, "worker.port", port=here[0].port, match="Address already in use"):
            InputWorker("localhost", port)
    for host in ("::1", "two words", "http://here"):
        with rejects(WorkerError, "worker.host", host=host):
            InputWorker(host, 0)


def test_what_cannot_travel(photos, here, monkeypatch):
    workers = InputWorkers([here[0].address])
    data = workers.checked(load(photos).train)
    with rejects(WorkerError, "worker.extra_layer"):
        training_batches(data, recipe(policy=replace(POLICY, extra=lambda images: images)), seed=0)
    monkeypatch.setattr("recipes.training.input.workers.IN_MEMORY", 1000)
    with rejects(WorkerError, "worker.memory", size=57_600, limit=1000):
        workers.checked(load((np.zeros((10, 40, 48, 3), np.uint8), np.arange(10) % 2)).train)
    with rejects(WorkerError, "worker.memory", size=3200, limit=1000):
        workers.checked(load(([b"\x89PNG" * 200] * 4, [0, 0, 1, 1])).train)


def test_images_that_the_workers_lack_or_that_are_others(here, tmp_path, monkeypatch):
    """The file is changed once this process has read it, before the worker does."""
    data = load(folder(tmp_path, per_class=4)).train
    workers, last = InputWorkers([here[0].address]), data.images[-1]

    def changed(address, dataset):
        with open(last, "ab") as file:
            file.write(b"another")
        return Remote(address, dataset)

    monkeypatch.setattr("recipes.training.input.workers.Remote", changed)
    with rejects(WorkerError, "worker.other_image", path=last):
        workers.checked(data)

    def deleted(address, dataset):
        os.unlink(last)
        return Remote(address, dataset)

    monkeypatch.setattr("recipes.training.input.workers.Remote", deleted)
    with rejects(WorkerError, "worker.unread", address=here[0].address, match=rf"\(.*{last}.*\)"):
        workers.checked(data)


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_named(photos, here, tmp_path):
    root = folder(tmp_path / "photos", per_class=4)
    data = InputWorkers([here[0].address]).checked(load(root).train)
    bad = root / "red" / "009.jpg"
    bad.write_bytes(b"no picture")
    with pytest.raises(tf.errors.OpError) as raised:
        pulled(data, recipe(1))
    assert f"cannot read {bad}" in str(reading_failed(raised.value, data))


@pytest.mark.minutes
def test_a_worker_dies_and_comes_back(photos, caplog):
    """Killed in the first epoch, restarted at its port in the second: the same batches, and the log says so."""
    caplog.set_level("INFO", "recipes")
    data = load(photos).train
    local = pulled(data, recipe(6))
    with Process() as first, Process() as second:
        assert first.said[1].strip().endswith(f"--input-workers {first.address}")
        workers = InputWorkers([first.address, second.address]).checked(data)
        found = []
        for number, (x, y) in enumerate(training_batches(workers, recipe(6), seed=5)):
            if number == 2:
                second.process.kill()
            if number == 14:
                again = Process(second.port)
            found.append((x.numpy(), y.numpy()))
            time.sleep(0.2)
        again.process.kill()
    assert_same(local, found)
    log = caplog.text
    assert f"Input worker {second.address} has stopped" in log and f"{first.address} will prepare" in log
    assert f"Input worker {second.address} is back" in log


@pytest.mark.minutes
def test_a_worker_that_is_frozen(photos):
    data = load(photos).train
    with Process() as only:
        workers = InputWorkers([only.address]).checked(data)
        stream = iter(training_batches(workers, recipe(50), seed=5))
        next(stream)
        only.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(tf.errors.OpError, match="All input workers have stopped"):
            for _ in stream:
                pass
        assert time.monotonic() - began < 120
        assert reading_failed(tf.errors.OpError(None, None, "", 2), workers).code == "worker.all_lost"


@pytest.mark.minutes
def test_the_same_weights_though_all_workers_died(photos, tmp_path):
    """Trained here; and on two workers that are both killed, then started again with the same command."""
    network = str(tmp_path / "small.keras")
    small_network(tmp_path / "small.keras")
    options = dict(backbone=network, recipe=recipes.adjusted("all", epochs=100, batch_size=4, size=32))
    expected = recipes.finetune(photos, **options)
    with Process() as first, Process() as second:

        class Kill(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    first.process.kill()
                    second.process.kill()

        both = [first.address, second.address]
        with rejects(WorkerError, "worker.all_lost"):
            recipes.finetune(photos, **options, output=tmp_path / "run", callbacks=[Kill()], input_workers=both)
    with Process() as third:
        result = recipes.finetune(photos, **options, output=tmp_path / "run", input_workers=[third.address])
    for a, b in zip(expected.model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.minutes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_by_a_signal(number):
    with Process(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as worker:
        worker.process.send_signal(number)
        assert worker.process.wait(20) == 128 + number
