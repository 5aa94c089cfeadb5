"""The validation split that is made when none is given."""

import numpy as np
from assertions import rejects
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes import DataError
from recipes.data.split import stratified_split


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=20, max_size=120),
    st.floats(0.05, 0.6),
    st.integers(0, 5),
)
def test_split_is_a_partition_without_leaks(pairs, fraction, seed):
    pairs += [(label, 100 + 10 * label + i) for label in range(3) for i in range(3)]
    labels = np.array([label for label, _ in pairs])
    prints = [f"{label}-{content}" for label, content in pairs]
    inside, outside = stratified_split(labels, prints, fraction, seed=seed)
    assert sorted([*inside, *outside]) == list(range(len(labels)))
    assert not {prints[i] for i in inside} & {prints[i] for i in outside}
    assert set(labels[inside]) == set(labels[outside]) == set(labels)


def test_order_and_names_do_not_matter():
    labels, prints = np.repeat([0, 1], 20), [f"content {i}" for i in range(40)]
    order = np.random.default_rng(0).permutation(40)
    _, straight = stratified_split(labels, prints, 0.2)
    _, shuffled = stratified_split(labels[order], [prints[i] for i in order], 0.2)
    assert {prints[i] for i in straight} == {prints[order[i]] for i in shuffled}
    assert np.bincount(labels[straight]).tolist() == [4, 4]


def test_other_seed_other_split():
    labels, prints = np.repeat([0, 1], 20), [f"content {i}" for i in range(40)]
    assert stratified_split(labels, prints, seed=0)[1].tolist() != stratified_split(labels, prints, seed=1)[1].tolist()


def test_class_of_copies_cannot_be_split():
    with rejects(DataError, "split.small_class", pictures=1):
        stratified_split(np.array([0, 0, 1, 1]), ["a", "a", "b", "c"])


def test_a_large_group_does_not_become_the_validation_part():
    """Frames of one film among single pictures."""
    labels = np.zeros(100, int)
    prints = ["film"] * 80 + [f"picture {i}" for i in range(20)]
    for seed in range(20):
        _, outside = stratified_split(labels, prints, 0.2, seed=seed)
        assert "film" not in {prints[i] for i in outside} and len(outside) in (18, 19)


def test_two_large_groups_and_a_small_one():
    labels, prints = np.zeros(50, int), ["a"] * 24 + ["b"] * 24 + ["c"] * 2
    for seed in range(5):
        _, outside = stratified_split(labels, prints, 0.2, seed=seed)
        assert {prints[i] for i in outside} == {"c"}
