"""What a time limit leaves out is left out, and said."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from makers import arrays, small_network

import recipes
from recipes import adjusted
from recipes.core.budget import Budget
from recipes.data.sources import load
from recipes.evaluation.selection import Candidates, Score
from recipes.networks.backbones import resolve
from recipes.networks.classifier import logits_model
from recipes.planning.request import Request
from recipes.training.callbacks import StopAt
from recipes.training.fit import Fitted, fit
from recipes.training.loop.task import Task
from recipes.training.prepare import loaded, prepare
from recipes.training.start import Start
from recipes.training.train import _with_outcome

SCORE = Score(np.zeros(4), np.ones(4, bool), np.full(4, 0.25))


@pytest.mark.slow
def test_from_scratch_there_is_one_epoch_and_nothing_is_measured_after_the_end():
    result = recipes.finetune(arrays(20), backbone=small_network(), recipe="scratch", validation=0.9, time_limit=0.01)
    assert len(result.history["val_loss"]) == result.recipe.epochs == 1
    told = str(result)
    assert "0 s of the time limit are left, so 1 instead of" in told
    assert "no time was left to measure whether averaging over mirror images helps" in told and not result.recipe.mirror
    assert "not measured: no time was left" in told and "the time limit was exceeded by" in told


def test_several_trainings_share_the_time():
    request = Request(arrays(4), small_network(), "scratch")
    one, five = (prepare(request, loaded(request), Budget.of(1000), trainings=n).summary for n in (1, 5))
    assert one.image_seconds > 0
    assert 0 < five.seconds_left <= 200 < one.seconds_left


def test_looks_are_counted_against_the_deadline():
    splits = SimpleNamespace(validation=range(100))
    start = Start(None, splits, None, None, image_seconds=0.1)
    assert start.time_for(10, Budget()) and start.time_for(10, Budget.of(200))
    assert not start.time_for(10, Budget.of(50))


def test_what_is_left_out_at_the_end_of_a_training_is_told():
    images = load(arrays(4)).train
    model = logits_model(resolve(small_network()), 3, 32)
    recipe = recipes.finetune_all(32)
    fitted = fit(Task(model, images, recipe, seed=0), images, budget=Budget.of(0))
    assert fitted.cut and not fitted.candidates.between and not fitted.candidates.larger
    assert [reason.values["what"] for reason in fitted.reasons] == [
        "weights between the linear classifier's and the finetuned ones", "larger images"
    ]  # fmt: skip
    stop = StopAt(Budget.of(1000))
    assert stop.allows_trying("anything", 3) and not stop.left_out


def test_only_sizes_that_were_compared_are_said_to_be_as_good_as_any():
    def told(**candidates):
        fitted = Fitted({"val_loss": [0.0]}, 1, SCORE, Candidates((SCORE,), **candidates), 1.0, 40, False, 4, 1.0)
        return str(_with_outcome(replace(recipes.finetune_all(32), test_size=40), fitted))

    assert "classified as well as those" not in told()
    assert "images of 40 px are classified as well as those of any other size" in told(larger=(SCORE,))


def test_crops_and_mirror_images_that_were_asked_for_stay():
    recipe = adjusted("probe", size=32, mirror=True, crops=5, scales=(40,))
    saw = np.tile(np.arange(40) % 8 * 30, (40, 1))[..., None]
    noise = np.random.default_rng(0).integers(0, 40, (120, 40, 40, 3))
    images = np.where(np.arange(120)[:, None, None, None] % 2, saw, saw[:, ::-1]) + noise
    data = images.astype(np.uint8), np.arange(120) % 2
    result = recipes.finetune(data, backbone=small_network(), recipe=recipe, validation=0.5)
    assert not result.probe.mirrors.alike
    assert result.recipe.mirror and "although they change the class" in str(result.recipe)
    assert (result.recipe.crops, result.recipe.scales) == (5, (40,))
    (row,) = (row for row in result.ledger if row.trick == "5 crops")
    assert row.kept and row.note.startswith("requested")
