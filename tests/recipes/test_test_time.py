"""What is averaged at test time: crops, whole images, noise; and predictions that abstain."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from assertions import rejects
from makers import arrays, folder, small_network
from scipy.special import softmax

import augment
import recipes
import recipes.networks.classifier
from layers import StochasticDepth
from recipes import DataError, RecipeError
from recipes.data.sources import load
from recipes.evaluation.calibrate import crop_sets
from recipes.evaluation.noise import noisy
from recipes.evaluation.test_time import Crops, averaged, make_crops
from recipes.networks.backbones import resolve
from recipes.networks.fully_convolutional import dense_model

PROBE = recipes.adjusted("probe", size=32, mirror=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("photos"), per_class=8)


@pytest.fixture(scope="module")
def result(photos):
    return recipes.finetune(photos, backbone=small_network(), recipe=PROBE)


def by_hand(result, data, grid):
    """(n, crops, classes) of the crops that `augment.multicrop` cuts, one image at a time."""
    return np.stack([result.model.predict(grid(data.encoded(i)), verbose=0) for i in range(len(data))])


@pytest.mark.parametrize(("crops", "scales"), [(5, None), (10, (40, 56)), (1, (48,))])
def test_crops_are_those_of_multicrop(result, photos, crops, scales):
    data, size = load(photos).train, result.recipe.evaluation_policy.size
    scales = scales and tuple(size + s for s in scales)
    grid = augment.multicrop(scales or (round(size * 256 / 224),), crops, size)
    expected = by_hand(result, data, grid)
    got = result.probabilities(data, crops=crops, scales=scales, mode="crops")
    np.testing.assert_allclose(got, expected.mean(1), atol=1e-5)
    logits = result.probabilities(data, crops=crops, scales=scales, mode="crops", average="logits")
    geometric = np.exp(np.log(expected).mean(1))
    np.testing.assert_allclose(logits, geometric / geometric.sum(1, keepdims=True), atol=1e-5)


def test_dense_averages_every_window_of_the_image_and_its_mirror_image(result, photos):
    data, size = load(photos).train, result.recipe.evaluation_policy.size
    scale = 2 * size
    model = result.model
    read = model.get_layer("small")
    maps = keras.Model(read.inputs, [layer.input for layer in read.layers if layer.name.startswith("pool_")])
    kernel, bias = model.get_layer("logits").get_weights()
    rows = []
    for i in range(len(data)):
        image = augment.whole(augment.decode(data.encoded(i)), scale, 4).numpy()
        assert min(image.shape[:2]) == scale
        features = windows(maps.predict(np.stack([image, image[:, ::-1]]), verbose=0), size)
        rows.append(softmax(features @ kernel + bias, -1).mean((0, 1, 2)))
    np.testing.assert_allclose(result.probabilities(data, crops=10, scales=(scale,), mode="dense"), rows, atol=1e-4)


def windows(maps, size):
    """(images, rows, columns, channels): means of the maps over windows of size × size pixels, one deep cell apart."""
    strides = [round(2 * size / min(m.shape[1:3])) for m in maps]
    deepest, found = max(strides), []
    for m, stride in zip(maps, strides, strict=True):
        cells, step = size // stride, deepest // stride
        means = np.lib.stride_tricks.sliding_window_view(m, (cells, cells), (1, 2)).mean((-2, -1))
        found.append(means[:, ::step, ::step])
    return np.concatenate(found, -1)


def test_of_one_window_dense_is_the_model_itself(result):
    size = result.recipe.evaluation_policy.size
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)
    found = dense_model(result.model, size).predict(images, verbose=0)
    assert found.shape == (4, 1, 1, 3)
    np.testing.assert_allclose(found[:, 0, 0], result.model.predict(images, verbose=0), atol=1e-6)


def test_networks_of_several_strides_together():
    members = []
    for stride in (4, 16):
        images = keras.Input((None, None, 3))
        network = keras.Model(images, keras.layers.Conv2D(5, stride, stride, activation="relu")(images))
        members.append(recipes.networks.classifier.logits_model(resolve(network), 3, 32))
    model = recipes.networks.classifier.with_probabilities(members)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    found = dense_model(model, 32).predict(images, verbose=0)
    np.testing.assert_allclose(found[:, 0, 0], model.predict(images, verbose=0), atol=1e-5)


def test_windows_of_a_size_that_is_no_multiple_of_the_stride():
    backbone = resolve("MobileNetV2(alpha=0.35, weights=None)")
    # Its feature maps of 144 px end uneven.
    model = recipes.networks.classifier.logits_model(backbone, 3, 144, taps=(0, 1, 2, 3, 4))
    images = np.random.default_rng(0).integers(0, 256, (1, 160, 192, 3), np.uint8)
    found = dense_model(model, 144).predict(images, verbose=0)
    assert found.shape == (1, 1, 2, 3)
    np.testing.assert_array_equal(found, dense_model(model, 160).predict(images, verbose=0))


def test_images_of_many_shapes_keep_their_order(result, tmp_path):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (40 + 7 * i, 40 + 5 * (i % 3), 3), np.uint8) for i in range(9)]
    together = result.predict(images, crops=10)
    for image, prediction in zip(images, together, strict=True):
        np.testing.assert_allclose(
            prediction.probabilities, result.predict([image], crops=10)[0].probabilities, atol=1e-4
        )


def test_auto_takes_the_cheaper_of_dense_and_crops(result):
    size = result.recipe.evaluation_policy.size
    scales = recipes.lecture_scales(size)
    looks = make_crops(result.model, result.recipe, 10, scales)
    assert (
        looks.dense == tuple(4 * round(s / 4) for s in scales[:2]) and looks.grid.scales == scales[2:] and looks.mirror
    )
    assert make_crops(result.model, result.recipe, 1, scales).dense == ()
    fixed = keras.Model(*(lambda x: (x, result.model(x)))(keras.Input((size, size, 3))))
    assert make_crops(fixed, result.recipe, 10).dense == ()
    with rejects(RecipeError, "crops.dense"):
        make_crops(fixed, result.recipe, 10, mode="dense")


def test_a_model_that_mirrors_by_itself_is_not_shown_mirror_images(result, photos):
    data = load(photos).train
    mirroring = replace(result.recipe, mirror=True)
    assert len(make_crops(result.model, mirroring, 10, mode="crops").grid) == 5
    ten = averaged(result.model, data, make_crops(result.model, result.recipe, 10, mode="crops"))
    twice = recipes.networks.classifier.with_probabilities(with_logits(result.model), mirror=True)
    np.testing.assert_allclose(averaged(twice, data, make_crops(twice, mirroring, 10, mode="crops")), ten, atol=1e-4)


@pytest.mark.parametrize(
    ("mirror", "alike", "looks"), [(False, True, [5, 10, 50]), (True, True, [5, 25]), (False, False, [5, 25])]
)
def test_no_crop_set_is_measured_twice(result, mirror, alike, looks):
    """Nor mirror images where they lose their class, or the model averages over them by itself."""
    recipe = replace(result.recipe, mirror=mirror)
    sets = crop_sets(recipe, alike)
    assert [len(make_crops(result.model, recipe, *each, mode="crops").grid) for each in sets] == looks


def with_logits(model):
    return keras.Model(model.inputs, model.get_layer("logits").output)


def test_cost_counts_pixels(result):
    grid = augment.multicrop((256,), 10, 224)
    assert Crops(grid).cost == 10
    dense = Crops(None, (256,), mirror=True)
    assert dense.cost == pytest.approx(2 * 4 / 3 * (256 / 224) ** 2)
    assert "whole image and its mirror image at 256 px" in str(dense)


@pytest.mark.slow
def test_the_crops_that_gain_are_chosen(photos, tmp_path):
    found = recipes.finetune(photos, backbone=small_network(), recipe=PROBE)
    found.choose_crops(photos)
    assert all("24 images are too few" in row.note for row in found.ledger if "crops" in row.trick)
    assert found.recipe.crops == 1
    found.choose_crops(folder(tmp_path, per_class=17))
    tricks = [row for row in found.ledger if "crops" in row.trick]
    assert [row.trick for row in tricks] == ["5 crops", "10 crops", "50 crops"]
    best = next((row for row in tricks if row.kept), None)
    assert found.recipe.crops == (int(best.trick.split()[0]) if best else 1)
    expected = found.probabilities(load(photos).train, crops=found.recipe.crops, scales=found.recipe.scales)
    np.testing.assert_allclose(found.probabilities(load(photos).train, crops="auto"), expected, atol=1e-6)
    found.probe = replace(found.probe, mirrors=replace(found.probe.mirrors, alike=False))
    found.choose_crops(photos)
    assert [row.trick for row in found.ledger if "crops" in row.trick] == ["5 crops", "25 crops"]


@pytest.mark.parametrize(
    ("options", "code", "attributes"),
    [
        ({"crops": 3}, "recipe.crops", dict(field="crops", value=3)),
        ({"crops": True}, "recipe.crops", dict(field="crops", value=True)),
        ({"crops": 10.0}, "recipe.crops", dict(field="crops", value=10.0)),
        ({"crops": 10, "scales": (8,)}, "crops.grid", dict(crops=10, scales=(8,))),
        ({"crops": 10, "mode": "sparse"}, "crops.mode", dict(mode="sparse", average="probabilities")),
        ({"crops": 10, "average": "votes"}, "crops.mode", dict(mode="auto", average="votes")),
        ({"mode": "sparse"}, "crops.mode", dict(mode="sparse")),
        ({"crops": 10, "scales": 256}, "crops.scales", dict(scales=256)),
        ({"crops": 10, "scales": ()}, "crops.scales", dict(scales=())),
        ({"crops": "auto", "scales": (640,)}, "recipe.scales", dict(field="scales", value=(640,))),
    ],
)
def test_wrong_crops(result, photos, options, code, attributes):
    with rejects(RecipeError, code, **attributes):
        result.evaluate(photos, **options)


def test_damaged_images_are_marked_at_any_crops(result, photos, tmp_path):
    content = (photos / "red" / "016.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[:500])
    (tmp_path / "whole.jpg").write_bytes(content)
    for options in ({"crops": 10}, {"samples": 2}):
        bad, good = result.predict(tmp_path, **options)
        assert bad.error.startswith("truncated jpeg") and bad.class_name is None and np.isnan(bad.probability)
        assert bad.path == str(tmp_path / "half.jpg") and not good.error
        assert (bad.spread is None) == (good.spread is None) == ("crops" in options)
        with rejects(DataError, "data.undecodable", files=(bad.path,), reasons=(bad.error,)):
            result.predict(tmp_path / "half.jpg", **options)
    with rejects(DataError, "data.undecodable", files=(str(tmp_path / "half.jpg"),)):
        result.probabilities(tmp_path, crops=10)


def noise_model(rate=0.5):
    images = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    x = StochasticDepth(rate, seed=0)(keras.layers.Dense(4, kernel_initializer="ones")(x))
    x = keras.layers.Rescaling(0.01)(x)
    return keras.Model(images, keras.layers.Softmax()(keras.layers.Dense(3, kernel_initializer=ramp)(x)))


def ramp(shape, dtype=None):
    return keras.ops.reshape(keras.ops.arange(np.prod(shape), dtype="float32"), shape) / 20


@pytest.mark.slow
def test_samples_average_over_the_noise_of_layers_and_augmentation():
    data = load(arrays(per_class=3)).train
    still = replace(recipes.finetune_all(32), policy=replace(augment.Policy.none(32), pca=1e-6), dropout=0.0)
    quiet = noisy(noise_model(0.0), data, still, samples=4)
    assert quiet.std.max() < 1e-4 and quiet.mutual_information.max() < 1e-6
    layer_noise = noisy(noise_model(), data, still, samples=40)
    assert layer_noise.std.min() > 0.01 and (layer_noise.mutual_information > 0).all()
    drawn = noisy(noise_model(0.0), data, recipes.finetune_all(32), samples=8)
    assert (drawn.std > 0).all()
    np.testing.assert_allclose(drawn.mean.sum(1), 1, atol=1e-6)


@pytest.mark.slow
def test_predict_with_samples_returns_the_spread(result, photos):
    several = result.predict(photos / "red", samples=5)
    assert all(p.spread > 0 and p.mutual_information >= 0 for p in several)
    plain = result.predict(photos / "red")
    assert all(p.spread is None and p.mutual_information is None for p in plain)
    again = result.predict(photos / "red", samples=5)
    np.testing.assert_array_equal([p.probabilities for p in several], [p.probabilities for p in again])
    with rejects(RecipeError, "noise.samples", samples=1):
        result.predict(photos / "red", samples=1)
    with rejects(RecipeError, "recipe.samples", field="samples", value=5, match="expected 0 with crops=10"):
        result.predict(photos / "red", samples=5, crops=10)


def test_no_name_below_the_requested_confidence(result, photos):
    sure = result.predict(photos / "red")
    at = float(np.median([p.probability for p in sure]))
    for prediction in result.predict(photos / "red", abstain=at):
        assert (prediction.class_name is None) == (prediction.probability < at)
    with rejects(RecipeError, "recipe.abstain", field="abstain", value=90):
        result.predict(photos / "red", abstain=90)
