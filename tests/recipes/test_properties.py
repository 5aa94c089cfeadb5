"""Properties of pure functions of `recipes` that hold for every input."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from augment import Policy
from recipes import Recipe, finetune_all, finetune_few, from_scratch, linear_probe
from recipes.data.split import stratified_split
from recipes.evaluation.metrics import wilson_interval
from recipes.planning.plan import plan
from recipes.planning.recipe_json import recipe_facts, recipe_of
from recipes.planning.summary import Summary

fast = settings(max_examples=50, deadline=None)


@fast
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_contains_the_accuracy(counts):
    right, n = counts
    low, high = wilson_interval(right, n)
    assert 0 <= low <= right / n + 1e-12 and right / n - 1e-12 <= high <= 1


@fast
@given(st.permutations(range(30)), st.integers(0, 5))
def test_a_split_does_not_depend_on_the_order_of_the_files(order, seed):
    labels, prints = np.repeat([0, 1, 2], 10), np.array([f"content {i}" for i in range(30)])
    expected = stratified_split(labels, prints.tolist(), 0.2, seed=seed)
    found = stratified_split(labels[order], prints[order].tolist(), 0.2, seed=seed)
    for part, rows in zip(expected, found, strict=True):
        assert set(prints[part]) == set(prints[order][rows])
    assert np.bincount(labels[expected[1]]).tolist() == [2, 2, 2]


@fast
@given(
    st.sampled_from([finetune_all(32), finetune_few(32), linear_probe(32), from_scratch(32, 500)]),
    st.integers(1, 500),
    st.floats(1e-9, 10),
    st.lists(st.integers(0, 9), unique=True, min_size=1).map(tuple),
    st.text(max_size=20),
    st.sampled_from([Policy.none(32), Policy.light(32), finetune_all(32).policy]),
)
def test_a_recipe_comes_back_from_its_json(recipe, epochs, learning_rate, taps, words, policy):
    recipe = replace(recipe, epochs=epochs, learning_rate=learning_rate, taps=taps, policy=policy)
    recipe = recipe.because("test", "{words}: {epochs}", words=words, epochs=epochs)
    assert recipe_of(json.loads(json.dumps(recipe_facts(recipe)))) == recipe
    assert recipe.reasons == (f"{words}: {epochs}",)
    facts = recipe_facts(recipe)
    del facts["decisions"]
    assert recipe_of(json.loads(json.dumps(facts | {"reasons": [words]}))).reasons == (words,)  # of earlier versions


def probe(last: float, best: float) -> SimpleNamespace:
    """Linear classifiers on two stages of these accuracies; only what the plan reads."""
    losses = np.linspace(0, 1, 50)
    stages = [
        SimpleNamespace(
            name=f"stage {i}", accuracy=accuracy, interval=(max(0, accuracy - 0.05), min(1, accuracy + 0.05)),
            nll=2 - accuracy, taps=(i,), losses=losses * (2 - accuracy), mirror_gain=(0.0, 1.0),
        )
        for i, accuracy in enumerate((best, last))
    ]  # fmt: skip
    mirrors = SimpleNamespace(straight=last, mirrored=last, alike=True)
    return SimpleNamespace(
        stages=stages, last=stages[1], head=max(stages, key=lambda stage: stage.accuracy), mirrors=mirrors
    )


@fast
@given(
    st.builds(
        Summary,
        images=st.integers(4, 10**7),
        classes=st.integers(2, 10**4),
        size=st.integers(8, 512),
        pretrained=st.booleans(),
        held_out=st.none() | st.integers(1, 10**6),
        imbalance=st.floats(1, 10**4),
        weights=st.integers(0, 10**9),
        activations=st.integers(0, 10**9),
        memory=st.none() | st.integers(1, 10**12),
        image_seconds=st.floats(0, 10),
        seconds_left=st.none() | st.floats(0, 10**6),
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_the_plan_is_a_pure_function_that_has_a_recipe_for_every_dataset(summary, last, best):
    first, second = plan(summary, probe(last, best)), plan(summary, probe(last, best))
    assert isinstance(first, Recipe) and first == second
    assert first.epochs >= 0 and first.batch_size >= 1 and first.reasons
