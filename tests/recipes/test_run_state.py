"""What an output folder holds while its run is made."""

import dataclasses
import json
import os
import time

import numpy as np
import pytest
from assertions import rejects

import recipes
from recipes.planning.request import Request
from recipes.runs.folder import command_of
from recipes.runs.resume import RunState
from recipes.training.checkpoints import packed, unpacked

COMMAND = {"dataset": "photos", "seed": 0}
RECIPE = recipes.finetune_all(32, 30)


def begun(folder) -> RunState:
    run = RunState(folder, COMMAND)
    run.begin()
    return run


def test_what_was_planned_is_kept(tmp_path):
    with begun(tmp_path) as run:
        assert run.planned_recipe("auto") is None
        run.record_plan(RECIPE, {"a.jpg": "1", "b.jpg": "2"}, {"keras": "3"})
        run.training("first").keep(lambda: {"x": 1})
    with begun(tmp_path) as run:
        assert run.planned_recipe("auto") == RECIPE
        mine = dataclasses.replace(RECIPE.policy, extra=print)
        assert run.planned_recipe(recipes.adjusted("all", policy=mine)).policy == mine
        run.record_plan(recipes.finetune_few(), {"b.jpg": "2", "a.jpg": "1"}, {"keras": "3"})
        assert run.planned_recipe("auto") == RECIPE


def test_other_images_versions_and_devices_are_reported(tmp_path, caplog):
    images, two = {"a.jpg": "1", "b.jpg": "2"}, {"keras": "3", "devices": "2 GPU"}
    four = {"devices": "4 GPU on 2 hosts"}
    with begun(tmp_path) as run:
        assert run.record_plan(RECIPE, images, {"keras": "3", "devices": "8 GPU"}) == ()
        assert run.record_plan(RECIPE, images, two) == () and not caplog.messages  # 8 GPU have trained nothing
        run.training("first").keep(lambda: {"x": 1})
        assert run.record_plan(RECIPE, images, two) == ()
        (first,) = run.record_plan(RECIPE, images, two | four)
        assert first.values["changes"] == "devices: 2 GPU before, 4 GPU on 2 hosts now"
        assert caplog.messages == [str(first)]
        assert run.record_plan(RECIPE, images, two | four) == (first,) and len(caplog.messages) == 1
        again, second = run.record_plan(RECIPE, images, two | {"keras": "4"})
        assert again == first and "keras: 3 before, 4 now" in second.values["changes"]
        assert "4 GPU on 2 hosts before" in second.values["changes"]
        differences = dict(missing=["b.jpg"], new=["c.jpg"], changed=["a.jpg"])
        with rejects(recipes.DataError, "data.changed_since_start", **differences):
            run.record_plan(RECIPE, {"a.jpg": "7", "c.jpg": "2"}, {"keras": "3"})


def test_seconds_of_earlier_processes_count(tmp_path):
    with begun(tmp_path) as run:
        assert run.spent == 0
        time.sleep(0.01)
        run.training("first").keep(lambda: {})
    spent = RunState(tmp_path, COMMAND).spent
    assert spent >= 0.01
    with begun(tmp_path) as run:
        run.training("first").keep(lambda: {})
    assert RunState(tmp_path, COMMAND).spent > spent


def test_a_run_that_lost_nothing_leaves_nothing(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(recipes.DataError), begun(folder):
        raise recipes.DataError("no images")
    assert not folder.exists()
    with pytest.raises(recipes.DataError), begun(folder) as run:
        run.training("first").keep(lambda: {})
        raise recipes.DataError("an image is gone")
    with rejects(
        recipes.OutputError, "output.other_command", path=folder, differences=["seed"], match="seed: 0 before, 1 now"
    ):
        RunState(folder, COMMAND | {"seed": 1}).begin()
    with pytest.raises(recipes.TrainingError), begun(folder):
        raise recipes.TrainingError("no number")
    assert not (folder / ".state").exists()


def test_one_at_a_time(tmp_path):
    with begun(tmp_path), rejects(recipes.OutputError, "output.locked") as error:
        begun(tmp_path)
    assert error.value.holder.startswith(f"pid {os.getpid()} on ")
    with begun(tmp_path):
        pass


def test_states_come_back_as_they_were():
    tree = {"epoch": 3, "loss": float("inf"), "rows": [[np.arange(3), np.array(True)], []], "none": None, "x": np.pi}
    again = unpacked(packed(tree))
    np.testing.assert_array_equal(again["rows"][0][0], np.arange(3))
    assert again["rows"][0][1].dtype == bool and again["rows"][1] == []
    assert {k: v for k, v in again.items() if k != "rows"} == {k: v for k, v in tree.items() if k != "rows"}


def test_a_recipe_in_a_command_is_compared_without_its_reasons(tmp_path):
    """Earlier versions wrote these into the command, as sentences."""
    recipe = recipes.finetune_all(32).because("test", "{value:.3f} s are left", value=0.12345)
    command = Request("digits", "glyphs", recipe).command
    assert command["recipe"].startswith("Recipe(") and "0.12" not in command["recipe"]
    earlier = command["recipe"][:-1] + ", reasons=('asked for', \"it's (as it was)\"))"
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / "command.json").write_text(json.dumps(command | {"recipe": earlier}))
    assert command_of(tmp_path) == command
