"""Invalid values of a recipe are rejected at once; values that the network does not support, before the probe."""

from dataclasses import replace

import numpy as np
import pytest
from assertions import rejects

import recipes
from augment import Policy
from recipes import BackboneError, RecipeError, adjusted
from recipes.networks.backbones import resolve
from recipes.planning.reason import Reason
from recipes.planning.request import check_fits, requested_size
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
    """The message says which values are valid."""
    (field, value), *_ = changes.items()
    code = "recipe.policy_size" if "policy" in changes else "recipe.value"
    with rejects(RecipeError, code, field=field, value=value, match=message):
        adjusted("all", **changes)
    if set(changes) & {"snapshots", "size"}:
        return
    with rejects(RecipeError, code, field=field, value=value, match=message):
        replace(recipes.finetune_all(32), **changes)


def test_names_that_no_recipe_has():
    for code, make in (
        ("recipe.value", lambda: replace(recipes.finetune_all(32), name="zzz")),
        ("recipe.unknown", lambda: adjusted("best", epochs=1)),
        ("recipe.value", lambda: adjusted("scratch", epochs=0)),
        ("recipe.field", lambda: adjusted("all", learningrate=1)),
    ):
        with rejects(RecipeError, code):
            make()


def test_numbers_of_numpy_and_the_size_of_a_policy_are_understood():
    assert requested_size(adjusted("all", policy=Policy.light(48))) == 48
    given = dict(epochs=np.int64(3), learning_rate=np.float32(0.5), taps=[np.int64(1)], balanced=np.bool_(True))
    assert replace(recipes.finetune_all(32), **given).taps == (1,)


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        (dict(taps=(0, 99)), RecipeError, "request.taps"),
        (dict(test_size=3), BackboneError, "backbone.fixed_size"),
        (dict(size=48), BackboneError, "backbone.fixed_size"),
        (dict(scales=(5,)), RecipeError, "request.scales"),
    ],
)
def test_values_that_the_network_does_not_support(changes, error, code):
    with rejects(error, code, field=next(iter(changes))):
        check_fits(resolve("glyphs"), adjusted("all", **changes), changes.get("size", 32))


def test_the_network_is_checked_before_the_probe(monkeypatch):
    """The audit, which finds the size of the images, has read all of them by then."""
    monkeypatch.setattr(Extractor, "__call__", lambda *_, **__: pytest.fail("the network was shown images"))
    with rejects(RecipeError, "request.taps", field="taps", value=(99,), match="stages 0 to 2"):
        recipes.finetune(backbone="glyphs", recipe=adjusted("all", taps=(99,)))


@pytest.mark.parametrize(
    "saved",
    [
        {"code": "a", "text": "{x:>999999999}", "values": {"x": 1}},
        {"code": "a", "text": "{x.real}", "values": {"x": 1}},
        {"code": "a", "text": "{y}", "values": {"x": 1}},
        {"code": "a", "text": "{0}", "values": {"x": 1}},
        {"code": "a", "text": "{x:{x}}", "values": {"x": 1}},
        {"code": "a", "text": "{x", "values": {"x": 1}},
        {"code": "a", "text": "{x:.1f}", "values": {"x": "text"}},
        {"code": "a", "text": 7, "values": {}},
        {"code": "a", "text": "b", "values": []},
    ],
    ids=lambda saved: str(saved["text"]),
)
def test_reasons_of_files_are_checked(saved):
    with pytest.raises(ValueError):
        Reason.of(saved)
