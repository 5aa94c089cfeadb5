"""When the training loop reads values from the device, and how it reports waits for images."""

import json
import math
import re
from copy import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from makers import arrays, small_network

import augment
import recipes.training.checkpoints
import recipes.training.loop.attempt
import recipes.training.loop.input_wait
from layers import freeze_batch_statistics
from recipes.core.budget import Budget
from recipes.data.sources import load
from recipes.networks.backbones import resolve
from recipes.networks.classifier import logits_model
from recipes.planning.recipe import Recipe
from recipes.training.batches import training_batches
from recipes.training.callbacks import Logs, StopAt
from recipes.training.engines.tensorflow import TensorflowEngine
from recipes.training.loop.input_wait import InputWait
from recipes.training.loop.loop import Training
from recipes.training.loop.task import Task


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(recipes.training.loop.input_wait.time, "perf_counter", lambda: self.now)

    def stream(self, seconds):
        while True:
            self.now += seconds
            yield None


class Loss:
    """Records after how many steps it is read."""

    def __init__(self, engine, value=1.0):
        self.engine, self.value, self.step, self.seen = engine, value, len(engine.losses), None

    def __float__(self):
        self.seen = len(self.engine.losses) - 1 - self.step if self.seen is None else self.seen
        return self.value


class Recorded(TensorflowEngine):
    """Keeps its losses; the third of all is no number."""

    made, spoiled = [], False

    def __init__(self, model):
        super().__init__(model)
        self.losses = []
        self.made.append(self)

    def step(self, batch):
        super().step(batch)
        spoil = self.spoiled and len(self.made) == 1 and len(self.losses) == 2
        self.losses.append(Loss(self, math.nan if spoil else 1.0))
        return {"loss": self.losses[-1]}


@pytest.fixture
def engines(monkeypatch):
    monkeypatch.setattr(recipes.training.loop.attempt, "engine_for", Recorded)
    monkeypatch.setattr(recipes.training.checkpoints, "EVERY", 1e9)
    monkeypatch.setattr(Recorded, "made", [])
    return Recorded.made


def training(epochs=1, batch_size=4, **changes) -> Training:
    policy = augment.Policy.none(32)
    recipe = Recipe("all", 32, unfreeze=-1, epochs=epochs, batch_size=batch_size, policy=policy, **changes)
    return Training(Task(logits_model(resolve(small_network()), 3, 32), load(arrays(10)).train, recipe, seed=0))


def test_no_loss_is_looked_at_before_its_time_and_all_in_the_end(engines):
    """With callbacks, whose logs Keras's own list would read at every step."""
    ends = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, *, logs: ends.append(logs))
    training(epochs=2).run(2, [watch, StopAt(Budget())])
    (engine,) = engines
    assert len(ends) == 16 and ends[0]["loss"] == 1.0 and dict(ends[0]) == {"loss": 1.0}
    assert len(engine.losses) == 16
    for epoch in (engine.losses[:8], engine.losses[8:]):
        timed = 7  # before which the device is left with nothing to do
        assert [loss.seen for loss in epoch] == [*reversed(range(timed)), 0]


def test_the_logs_of_a_step_are_a_dict_of_numbers():
    """To whatever a callback does with them; Keras's TensorBoard passes over what is no dict."""
    logs = Logs({"loss": tf.constant(1.0)})
    assert isinstance(logs, dict) and logs.get("loss", 0.0) == 1.0 and logs.get("accuracy") is None
    for seen in (dict(logs), {**logs}, logs | {}, {} | logs, logs.copy(), copy(logs), dict(logs.items())):
        assert type(seen["loss"]) is float
    assert json.dumps(logs) == json.dumps(logs, indent=None) == '{"loss": 1.0}'
    assert repr(logs) == "{'loss': 1.0}" and type(logs.pop("loss")) is float and not logs


def test_the_fault_is_that_of_the_step_whose_loss_it_was(engines, monkeypatch):
    monkeypatch.setattr(Recorded, "spoiled", True)
    done = training().run(1)
    assert "the loss became nan at step 3 of epoch 1" in done.adjustments.reasons[0].values["what"]
    first, second = engines
    assert len(first.losses) == 7 and len(second.losses) == 8


@pytest.mark.parametrize(
    ("device", "share", "warning"),
    [
        ("GPU", 0.4, "the GPU waits 40% of the time for images: use more input_workers"),
        ("GPU", 0.2, ""),
        ("CPU", 0.4, ""),
        ("CPU", 0.6, "the training waits 60% of the time for images that this machine reads and augments"),
    ],
)
def test_waiting_is_reported(monkeypatch, device, share, warning):
    clock = Clock(monkeypatch)
    waiting, stream = InputWait(device), clock.stream(share)
    for _ in range(40):
        waiting.next(stream)
        clock.now += 1 - share
        waiting.stepped()
    assert waiting.verdict().startswith(warning) and bool(warning) == waiting.reported
    for _ in range(100):
        waiting.next(stream)
        waiting.stepped()
    assert not (warning and waiting.verdict())  # once


def test_what_the_device_still_had_to_do_is_no_wait(monkeypatch):
    """A host that runs ahead: of eight steps of a second four are waited for at once, images take a fifth of one."""
    clock = Clock(monkeypatch)
    waiting, stream = InputWait("GPU"), clock.stream(0.2)

    def finish():
        clock.now += 4.0

    for step in range(80):
        waiting.next(stream, finish)
        clock.now += 0.8 if step % 8 >= 4 else 0.0
        waiting.stepped()
    assert not waiting.verdict()


def test_few_steps_and_the_first_give_no_verdict(monkeypatch):
    clock = Clock(monkeypatch)
    waiting, slow, fast = InputWait("GPU"), clock.stream(0.9), clock.stream(0.0)
    for stream in [clock.stream(1000.0)] + [slow] * 30 + [fast] * 100:
        waiting.next(stream)
        clock.now += 0.1
        waiting.stepped()
        few = stream is slow
        assert not (few and waiting.verdict())
    assert not InputWait("GPU").verdict()


def test_a_training_that_waits_says_so(engines, monkeypatch, caplog):
    caplog.set_level("INFO", "recipes")
    clock = Clock(monkeypatch)
    monkeypatch.setattr(Recorded, "stream", lambda self, batches: _slow(iter(batches), clock))
    monkeypatch.setattr(Recorded, "__init__", _on_a_gpu(Recorded.__init__))
    training(epochs=2, batch_size=1).run(2)
    assert caplog.text.count("the GPU waits 100% of the time for images") == 1


def test_where_hosts_prepare_their_own_images_no_input_workers_are_advised(monkeypatch):
    clock = Clock(monkeypatch)
    waiting, stream = InputWait("GPU", alone=False), clock.stream(1.0)
    for _ in range(60):
        waiting.next(stream)
        waiting.stepped()
    warning = waiting.verdict()
    assert warning.startswith("the GPU waits 100% of the time for images") and "input_workers" not in warning


def _slow(stream, clock):
    for batch in stream:
        clock.now += 1.0
        yield batch


def _on_a_gpu(init):
    def made(self, model):
        init(self, model)
        self.device = "GPU"

    return made


def test_whole_numbers_travel_where_the_network_computes_in_16_bits(monkeypatch):
    import keras
    import tensorflow as tf

    engine = TensorflowEngine(logits_model(resolve(small_network()), 3, 32))
    pixels = np.array([-1, 0.4, 0.6, 254.7, 256], np.float32)
    batches = tf.data.Dataset.from_tensors((pixels, 0))
    engine.device = "GPU"
    assert engine.for_transfer(batches).element_spec[0].dtype == tf.float32
    monkeypatch.setattr(keras.config, "dtype_policy", lambda: keras.DTypePolicy("mixed_bfloat16"))
    ((found, _),) = engine.for_transfer(batches)
    assert found.dtype == tf.uint8 and found.numpy().tolist() == [0, 0, 1, 255, 255]
    engine.device = "CPU"
    assert engine.for_transfer(batches).element_spec[0].dtype == tf.float32


@pytest.mark.slow
def test_the_diagnosis_is_of_the_whole_batch_though_a_process_has_a_slice_of_it(engines, monkeypatch):
    """At the second of two workers, with two devices each: the files of all, and the gradient that one device finds."""
    one = training(batch_size=6)
    freeze_batch_statistics(one.task.model)  # else they are those of what is computed at once
    one.run(1)
    state = one.checkpoints.newest
    whole = one._attempt.diagnosis(0, 2, state)
    monkeypatch.setattr(Recorded, "shard", (1, 2))
    monkeypatch.setattr(Recorded, "replicas", 4)
    images, _ = next(iter(training_batches(one.task.images, one.task.recipe, seed=0, first_batch=2)))
    mine, *_ = next(iter(one._attempt.batches(1, 0, 2)))
    assert len(images) == 6 and len(mine) == 3
    diagnosis = one._attempt.diagnosis(0, 2, state)
    at = one.task.images.source().index(tf.range(12, 18, dtype=tf.int64), tf.zeros((), tf.int64), seed=0, shuffle=True)
    names = [one.task.images.names[i] for i in at]
    assert f"The batch contains {', '.join(names)}. Its" in diagnosis
    numbers = lambda text: [float(n) for n in re.findall(r"\S+(?=,|$)", text.split("weights are ")[1])]  # noqa: E731
    np.testing.assert_allclose(numbers(diagnosis), numbers(whole), rtol=1e-2)


def test_an_update_in_parts_is_never_kept_half_done():
    halves = training(epochs=2, batch_size=6, accumulate=2)
    seen, begins = [], lambda batch, logs: seen.append(halves._attempt.between_updates())
    halves.run(2, [keras.callbacks.LambdaCallback(on_train_batch_begin=begins)])
    assert seen == [True, False] * 10
    assert halves._attempt.engine.updates == 2 * 5
