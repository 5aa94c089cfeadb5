"""Hyperparameter search: its draws, its splits, its report, and processes that share a study."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import optuna
import pytest
from makers import arrays, folder, small_network

import recipes
import recipes.tuning.search
import recipes.tuning.study
from recipes import RecipeError, TrainingError
from recipes.core.budget import NO_LIMIT
from recipes.runs.recipe_file import load_recipe
from recipes.tuning import study as shared_study

BASE = recipes.adjusted("all", size=32, epochs=1)


SPACE = {"learning_rate": (1e-5, 1e-1, "log"), "weight_decay": (1e-5, 1e-1, "log")}


class Searched(NamedTuple):
    """A search of four trials over 60 images: its outcome, its output, and the images of its trainings."""

    found: recipes.Search
    output: str
    splits: list


@pytest.fixture(scope="module")
def searched():
    output, splits, train = io.StringIO(), [], recipes.tuning.search.train
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        patch.setattr("recipes.tuning.search.train", lambda *a, **k: splits.append(a[0].splits) or train(*a, **k))
        found = recipes.search(arrays(20), backbone=small_network(), recipe=BASE, trials=4, space=SPACE)
    return Searched(found, output.getvalue(), splits)


@pytest.fixture
def found(searched):
    return searched.found


def test_the_winner_is_a_recipe_for_finetune(found):
    best = found.best
    assert best.loss == min(trial.loss for trial in found.trials if trial.state == "complete")
    assert found.recipe.learning_rate == best.values["learning_rate"] and found.recipe.epochs == 1
    assert found.recipe.decisions[-1].code == "search.winner" and found.recipe.refit
    assert len(found.trials) == 4 and min(t.values["learning_rate"] for t in found.trials) >= 1e-5
    result = recipes.finetune(arrays(20), backbone=small_network(), recipe=found.recipe)
    assert result.recipe.learning_rate == best.values["learning_rate"]


def test_the_winner_is_evaluated_on_images_that_did_not_select_it(searched):
    assert len(searched.splits) == 5
    for splits in searched.splits:
        assert splits.test is None
        assert len(splits.train) + len(splits.validation) + searched.found.accuracy.n == 60
        assert searched.found.chosen_by == len(splits.validation)


def test_a_line_for_every_trial_as_in_the_lecture(searched):
    lines = [line for line in searched.output.splitlines() if line.startswith("val_acc: ")]
    assert [line[-7:] for line in lines] == ["(1 / 4)", "(2 / 4)", "(3 / 4)", "(4 / 4)"]
    assert "learning_rate: " in lines[0] and "weight_decay: " in lines[0]
    assert "4 trials of up to 1 epochs on 38 training images, ranked by 10 others" in searched.output
    assert "s/step" not in searched.output  # lines of Keras would bury the table


def test_saved_files(found, tmp_path):
    found.save(tmp_path / "search")
    assert load_recipe(tmp_path / "search" / "recipe.json") == found.recipe
    rows = (tmp_path / "search" / "trials.csv").read_text().splitlines()
    assert len(rows) == 5 and rows[0] == "number,state,accuracy,loss,learning_rate,weight_decay"
    assert "<svg" in (tmp_path / "search" / "search.svg").read_text()
    assert "All trials" in (tmp_path / "search" / "report.html").read_text()
    (tmp_path / "other.json").write_text('{"name": 3}')
    assert load_recipe(tmp_path / "search") == found.recipe
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="holds no recipe; expected the folder of a run"):
        load_recipe(tmp_path / "empty")
    for wrong in ("other.json", "none.json"):
        with pytest.raises(RecipeError, match="cannot be read as a recipe"):
            load_recipe(tmp_path / wrong)


def test_the_figure(found):
    titles = [axes.get_title() for axes in found.figure().axes if axes.get_title()]
    assert len(titles) == 3 and titles[0] == "importance"


def test_a_pruned_trial_has_its_line_too(caplog):
    caplog.set_level("INFO", "recipes")
    trial = SimpleNamespace(report=lambda *_: None, should_prune=lambda: True, set_user_attr=lambda *_: None)
    with pytest.raises(optuna.TrialPruned):
        recipes.tuning.search._Prune(trial, "dropout: 0.5, (2 / 4)").on_epoch_end(
            2, {"val_loss": 1.0, "val_accuracy": 0.5}
        )
    assert "val_acc: 0.5000, dropout: 0.5, (2 / 4): pruned after 3 epochs" in caplog.text


@pytest.mark.minutes
def test_the_same_seed_draws_the_same_values(found):
    again = recipes.search(arrays(20), backbone=small_network(), recipe=BASE, trials=4, space=SPACE)
    assert [t.values for t in again.trials] == [t.values for t in found.trials]
    np.testing.assert_array_equal([t.loss for t in again.trials], [t.loss for t in found.trials])


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        ({"space": {"magic": (0, 1)}}, "recipe.space", "space"),
        ({"space": {"learning_rate": (1e-2, 1e-4)}}, "recipe.space_range", "learning_rate"),
        ({"space": {"learning_rate": (0.0, 1.0, "log")}}, "recipe.space_range", "learning_rate"),
        ({"trials": 0}, "recipe.trials", "trials"),
        ({"pruner": "medium"}, "recipe.pruner", "pruner"),
        ({"sampler": "grid"}, "recipe.sampler", "sampler"),
    ],
)
def test_invalid_options(options, code, field):
    with pytest.raises(RecipeError) as error:
        recipes.search(arrays(8), backbone=small_network(), recipe=BASE, **options)
    assert (error.value.code, error.value.field) == (code, field)


@pytest.mark.parametrize("options", [{"space": {"dropout": (0.0, 1.5)}}, {"time_limit": "soon"}])
def test_invalid_values_of_a_recipe_and_of_a_request(options):
    with pytest.raises(RecipeError, match=next(iter(options["space"])) if "space" in options else "time_limit"):
        recipes.search(arrays(8), backbone=small_network(), recipe=BASE, **options)


@pytest.mark.minutes
def test_random_weights_and_epochs_are_searched_too(capsys):
    found = recipes.search(arrays(12), backbone=small_network(), trials=1, space={"epochs": [2, 1]},
                           recipe=recipes.adjusted("scratch", size=32, epochs=5))  # fmt: skip
    assert found.recipe.name == "scratch" and found.best.state == "complete"
    assert "1 trial of up to 2 epochs" in capsys.readouterr().out


def test_no_time_and_no_storage():
    with pytest.raises(TrainingError) as late:
        recipes.search(arrays(12), backbone=small_network(), recipe=BASE, trials=2, time_limit=0.1)
    assert late.value.code == "training.no_trial"
    with pytest.raises(RecipeError) as wrong:
        recipes.search(arrays(12), backbone=small_network(), recipe=BASE, trials=2, storage="search.db")
    assert (wrong.value.code, wrong.value.value) == ("recipe.storage", "search.db")


def test_a_trial_that_was_stopped_is_queued_again_with_its_values(tmp_path):
    """Ctrl-C in the second of three trials; the same call goes on."""
    storage, seen = shared_study.open_storage(f"sqlite:///{tmp_path / 'search.db'}"), []

    def objective(trial, slot):
        seen.append((slot, trial.suggest_float("x", 0, 1)))
        if len(seen) == 2:
            raise KeyboardInterrupt
        if slot == 2:
            raise TrainingError("diverged")
        return seen[-1][1]

    with pytest.raises(KeyboardInterrupt):
        shared_study.run_trials(shared_study.create_study(storage, "s", "random", 3, 0), objective, 3, NO_LIMIT)
    again = shared_study.create_study(storage, "s", "random", 3, 0)
    shared_study.run_trials(again, objective, 3, NO_LIMIT)
    assert sorted(slot for slot, _ in seen) == [0, 1, 1, 2] and seen[1] in seen[2:]
    assert [trial.state.name for trial in shared_study.finished_trials(again).values()] == [
        "COMPLETE",
        "COMPLETE",
        "FAIL",
    ]


@pytest.mark.parametrize(("pruner", "stopped"), [("median", True), ("hyperband", True), (None, False)])
def test_which_trials_are_pruned(pruner, stopped):
    """Nine epochs, of losses that are ever worse from trial to trial."""
    study = shared_study.create_study(None, "s", "random", 12, 0, pruner)

    def objective(trial, slot):
        for epoch in range(9):
            trial.report(slot + 1 / (1 + epoch), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(slot)

    shared_study.run_trials(study, objective, 12, NO_LIMIT)
    states = [trial.state.name for trial in shared_study.finished_trials(study).values()]
    assert len(states) == 12 and states[0] == "COMPLETE" and ("PRUNED" in states) == stopped


SEARCHER = """
import sys, keras, recipes, recipes.tuning.search, recipes.tuning.study
from makers import small_network
recipes.tuning.study._HEARTBEAT = 1
keras.utils.set_random_seed(0)
space = {"learning_rate": (1e-4, 1e-2, "log"), "label_smoothing": (0.0, 0.2)}
found = recipes.search(sys.argv[1], backbone=small_network(), recipe=recipes.adjusted("all", size=32, epochs=1),
                       trials=3, space=space, storage=sys.argv[2], sampler="random")
assert [trial.number for trial in found.trials] == [0, 1, 2], found.trials
"""


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_is_killed(tmp_path):
    photos, storage = folder(tmp_path / "photos", per_class=20), f"sqlite:///{tmp_path / 'search.db'}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RECIPES_CACHE": str(tmp_path)}
    line = [sys.executable, "-c", SEARCHER, str(photos), storage]
    first, second = (subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2))
    name = wait_for_a_trial(storage)
    first.send_signal(signal.SIGKILL)
    output = second.communicate(timeout=300)[0]
    assert second.returncode == 0, output
    study = optuna.load_study(study_name=name, storage=storage)
    done = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED") and not t.user_attrs.get("surplus")]
    assert sorted(trial.user_attrs["slot"] for trial in done) == list(range(3))
    assert not [trial for trial in study.trials if trial.state.name in ("RUNNING", "WAITING")]


def wait_for_a_trial(storage: str) -> str:
    """The study's name, once both processes are at a trial."""
    while True:
        try:
            for name in optuna.get_all_study_names(storage):
                running = [
                    t for t in optuna.load_study(study_name=name, storage=storage).trials if t.state.name == "RUNNING"
                ]
                if len(running) == 2:
                    return name
        except Exception as error:  # the tables are being made
            print(error)
        time.sleep(0.2)
