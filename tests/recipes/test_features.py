"""Features of the frozen network: kept on disk, whatever order the images come in; LogME; the ranking of networks."""

import numpy as np
import pytest
from assertions import rejects
from makers import arrays, small_network

import recipes
from recipes.data.sources import load
from recipes.networks.backbones import resolve
from recipes.probing import cache as feature_cache
from recipes.probing.features import Extractor
from recipes.probing.logme import logme


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def look():
    return Extractor(resolve(small_network()), 32)


@pytest.fixture(scope="module")
def data():
    return load(arrays(4)).train


def prints(data):
    return [f"{i:03}" for i in range(len(data))]


def test_one_array_a_stage_and_a_view(look, data):
    features = look(data, prints(data), mirrored=True)
    assert [stage.shape for stage in features.stages] == [(2, 12, 8), (2, 12, 16)]
    assert features.tapped((0, 1)).shape == (2, 12, 24)
    mirrored = look(
        load((data.images[:, :, ::-1], data.labels)).train, [f"flipped {p}" for p in prints(data)], mirrored=True
    )
    np.testing.assert_allclose(features.stages[1][0], mirrored.stages[1][1], atol=2e-3)


def test_a_second_look_is_free_in_any_order(look, data, cache, monkeypatch):
    first = look(data, prints(data), mirrored=False)
    assert "saved in" in first.origin and first.image_seconds > 0
    monkeypatch.setattr(Extractor, "_run", lambda *_: pytest.fail("the network was run again"))
    order = np.random.default_rng(0).permutation(len(data))
    again = look(data.subset(order), [prints(data)[i] for i in order], mirrored=False)
    assert "features from" in again.origin and again.image_seconds == first.image_seconds
    np.testing.assert_array_equal(again.stages[0], first.stages[0][:, order])


def test_other_weights_or_images_are_another_key(look, data):
    keys = {feature_cache.key(look.model, prints(data), look.policy, False)}
    keys.add(feature_cache.key(look.model, prints(data)[1:], look.policy, False))
    keys.add(feature_cache.key(look.model, prints(data), look.policy, True))
    keys.add(feature_cache.key(Extractor(resolve(small_network(seed=1)), 32).model, prints(data), look.policy, False))
    assert len(keys) == 4
    same = Extractor(resolve(small_network()), 32)
    assert feature_cache.key(same.model, prints(data), look.policy, False) in keys


def test_a_damaged_cache_is_written_again_and_reported(look, data, cache):
    first = look(data, prints(data), mirrored=False)
    (file,) = cache.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    again = look(data, prints(data), mirrored=False)
    assert "was damaged" in again.origin
    np.testing.assert_array_equal(again.stages[0], first.stages[0])
    assert "was damaged" not in look(data, prints(data), mirrored=False).origin


def test_a_cache_that_cannot_be_written_is_reported(look, data, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECIPES_CACHE", str(tmp_path / "file"))
    assert "not saved" in look(data, prints(data), mirrored=False).origin


def test_what_was_used_longest_ago_gives_way(cache, monkeypatch):
    one = np.zeros(1000, np.float32)
    monkeypatch.setattr(feature_cache, "LIMIT", 10_000)
    for i in range(4):
        feature_cache.cached(f"{i}", lambda: [one])
    assert sorted(file.stem for file in cache.glob("*.npz")) == ["2", "3"]
    assert "not saved" in feature_cache.cached("big", lambda: [np.zeros(2000, np.float32)])[1]


@pytest.mark.parametrize(("n", "channels"), [(60, 8), (30, 50)])
def test_logme_is_the_maximum_of_the_evidence(n, channels):
    """Against a direct maximisation of log N(y | 0, I/β + F Fᵀ/α)."""
    from scipy.optimize import minimize
    from scipy.stats import multivariate_normal

    random = np.random.default_rng(0)
    features = random.normal(size=(n, channels))
    labels = (features[:, 0] + 0.5 * random.normal(size=n) > 0).astype(int)

    def evidence(targets):
        def negative(logs):
            alpha, beta = np.exp(logs)
            covariance = np.eye(n) / beta + features @ features.T / alpha
            return -multivariate_normal.logpdf(targets, np.zeros(n), covariance)

        return -min(minimize(negative, x0, method="Nelder-Mead").fun for x0 in ([0, 0], [3, 2])) / n

    expected = np.mean([evidence((labels == c).astype(float)) for c in (0, 1)])
    assert logme(features, labels, 2) == pytest.approx(expected, abs=2e-3)
    assert logme(features, labels, 2) > logme(random.normal(size=(n, channels)), labels, 2)


def test_rank_puts_the_better_network_first():
    """Of the same network, once with its weights and once blind (all weights 0 but the bias)."""
    blind = small_network(seed=3)
    blind.set_weights([np.zeros_like(w) for w in blind.get_weights()])
    blind.layers[3].set_weights([np.ones(8), np.zeros(8), np.zeros(8), np.ones(8)])
    ranking = recipes.rank(arrays(8), [blind, small_network()])
    assert ranking.best.probe.head.nll < ranking.networks[1].probe.head.nll
    assert ranking.best.probe.last.logme > ranking.networks[1].probe.last.logme
    assert "LogME" in str(ranking)


def test_rank_needs_weights_that_mean_something():
    with rejects(recipes.BackboneError, "backbone.none", field="backbones"):
        recipes.rank(arrays(4), [])
    with rejects(recipes.BackboneError, "backbone.random_weights", value=["MobileNetV2(alpha=0.35, weights=None)"]):
        recipes.rank(arrays(4), ["MobileNetV2(alpha=0.35, weights=None)"])
