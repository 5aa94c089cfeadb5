"""The ledger of the training's tricks."""

import numpy as np
import pytest
from assertions import rejects
from makers import folder, small_network

import recipes
import recipes.studies.ablate
from recipes import RecipeError
from recipes.studies.ablate import TRICKS
from recipes.training.start import Start

PROBE = recipes.adjusted("probe", size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("photos"), per_class=8)


@pytest.mark.minutes
def test_every_trick_has_its_row(photos, monkeypatch):
    """And every training a network of its own, which all begin alike."""
    starts, train = [], recipes.studies.ablate.train
    monkeypatch.setattr("recipes.studies.ablate.train", lambda *a, **k: starts.append(a[0]) or train(*a, **k))
    recipe = recipes.adjusted("scratch", size=32, epochs=2, label_smoothing=0.1)
    tricks = ("label smoothing", "MixUp", "stochastic depth", "snapshot ensemble")
    ablation = recipes.ablate(photos, backbone=small_network(), recipe=recipe, tricks=tricks)
    rows = {row.trick: row for row in ablation.rows}
    assert {*tricks, "5 crops", "10 crops", "50 crops", "soup of the runs"} <= set(rows)
    assert "no residual branches" in rows["stochastic depth"].note
    assert "epochs = 2" in rows["snapshot ensemble"].note
    assert rows["label smoothing"].note.startswith("in the recipe") and rows["MixUp"].note.startswith("not in")
    for trick in TRICKS:
        if trick.name in rows and rows[trick.name].interval:
            assert trick.used(ablation.recipe) == rows[trick.name].kept
    assert "label smoothing" in str(ablation)
    assert (
        "6 images are too few to decide, so the recipe is unchanged" in rows["label smoothing"].note
        and ablation.recipe.label_smoothing == 0.1
    )
    first, *others = (start.network.network for start in starts)
    assert len(others) == 3
    for other in others:
        for a, b in zip(first.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not {id(v) for v in first.variables} & {id(v) for v in other.variables}


def test_an_unknown_trick(photos):
    with rejects(RecipeError, "recipe.tricks", value=["magic"]):
        recipes.ablate(photos, tricks=("magic",))


@pytest.mark.slow
def test_the_time_limit_leaves_rows_unmeasured(photos):
    ablation = recipes.ablate(
        photos, backbone=small_network(), recipe=recipes.adjusted("scratch", size=32, epochs=1), time_limit=0.1
    )
    assert all("not measured" in row.note for row in ablation.rows if row.trick in {trick.name for trick in TRICKS})
    assert ablation.rows[0].note == "the time limit ended its training"
    assert not any(row.interval for row in ablation.rows if row.trick.endswith(("crops", "soup of the runs")))


@pytest.mark.slow
def test_without_gradient_steps_there_are_only_crops(photos, monkeypatch):
    """Without mirror images where these lose their class."""
    monkeypatch.setattr(Start, "mirrors_alike", False)
    ablation = recipes.ablate(photos, backbone=small_network(), recipe=PROBE)
    assert not {trick.name for trick in TRICKS} & {row.trick for row in ablation.rows}
    assert [row.trick for row in ablation.rows if "crops" in row.trick] == ["5 crops", "25 crops"]
