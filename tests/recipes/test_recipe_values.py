"""What a recipe cannot have is refused at once; what only the network can tell, before anything long begins."""

from dataclasses import replace

import numpy as np
import pytest

import recipes
from augment import Policy
from recipes import BackboneError, RecipeError, adjusted
from recipes.networks.backbones import resolve
from recipes.planning.request import asked_size, check_fits
from recipes.probing.features import Extractor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(learning_rate=-1), "positive"),
        (dict(learning_rate="0.1"), "finite number"),
        (dict(learning_rate=float("inf")), "finite number"),
        (dict(weight_decay=-1), "at least 0"),
        (dict(patience=-3), "at least 0"),
        (dict(epochs="3"), "whole number"),
        (dict(taps=()), "whole numbers"),
        (dict(taps=(1, 1)), "different"),
        (dict(taps=(-1,)), "at least 0"),
        (dict(crops=3), r"\(1, 5, 10\)"),
        (dict(scales=(0,)), "at least 1"),
        (dict(mirror="yes"), "True, False or None"),
        (dict(refit=None), "True or False"),
        (dict(snapshots=-1), "at least 0"),
        (dict(size=0), "positive"),
        (dict(size=32, policy=Policy.light(48)), "its policy crops 48"),
    ],
)
def test_values_that_no_recipe_can_have(changes, message):
    with pytest.raises(RecipeError, match=message):
        adjusted("all", **changes)
    if set(changes) & {"snapshots", "size"}:
        return
    with pytest.raises(RecipeError, match=message):
        replace(recipes.finetune_all(32), **changes)


def test_names_that_no_recipe_has():
    with pytest.raises(RecipeError, match="zzz"):
        replace(recipes.finetune_all(32), name="zzz")
    with pytest.raises(RecipeError, match="'best'; expected one of"):
        adjusted("best", epochs=1)
    with pytest.raises(RecipeError, match="nothing would be learned"):
        adjusted("scratch", epochs=0)
    with pytest.raises(RecipeError, match="learning_rate"):
        adjusted("all", learningrate=1)


def test_numbers_of_numpy_and_the_size_of_a_policy_are_understood():
    assert asked_size(adjusted("all", policy=Policy.light(48))) == 48
    given = dict(epochs=np.int64(3), learning_rate=np.float32(0.5), taps=[np.int64(1)], balanced=np.bool_(True))
    assert replace(recipes.finetune_all(32), **given).taps == (1,)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(taps=(0, 99)), RecipeError, "stages 0 to 2"),
        (dict(test_size=3), BackboneError, "test_size is 3"),
        (dict(size=48), BackboneError, "size is 48"),
        (dict(scales=(5,)), RecipeError, "at least the images' side, 32"),
    ],
)
def test_what_the_network_does_not_have(changes, error, message):
    with pytest.raises(error, match=message):
        check_fits(resolve("glyphs"), adjusted("all", **changes), changes.get("size", 32))


def test_the_network_is_asked_before_it_looks_at_an_image(monkeypatch):
    """The audit, which tells the size that is asked for, has looked at all by then."""
    monkeypatch.setattr(Extractor, "__call__", lambda *_, **__: pytest.fail("the network was shown images"))
    with pytest.raises(RecipeError, match="stages 0 to 2"):
        recipes.finetune(backbone="glyphs", recipe=adjusted("all", taps=(99,)))
