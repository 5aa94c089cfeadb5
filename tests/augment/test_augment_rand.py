"""RandAugment: every operation gives the pixels of keras-cv's layer, and its draws have the stated distributions."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import augment
from augment import Policy, PolicyError
from augment.draws import SLOTS, uniforms
from augment.pipeline import render
from augment.pixel_operations import operated
from augment.preview import drawn
from augment.rand_augment import OPERATIONS, Operation, operations
from augment.region import fetch
from recipes.planning.constructor_text import constructor_text
from recipes.planning.ready_made import adjusted, finetune_all
from recipes.planning.recipe_json import recipe_facts, recipe_of

RNG = np.random.default_rng(0)
SIZE = 24
IMAGES = RNG.integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
AMOUNTS = np.array([-0.9, -0.3, 0.0, 0.2, 0.6, 1.0], np.float32)
COUNT = 20_000
STRONG = replace(Policy.rand_augment(16, operations=3), erase=0.5)


@pytest.fixture(scope="module")
def keras_cv():
    return pytest.importorskip("keras_cv")


def plain(size=SIZE, **fields):
    """A policy that does nothing but RandAugment to images of that size."""
    return replace(Policy.none(size), **{"rand_operations": 1, "rand_magnitude": 1.0, "rand_stddev": 0.0, **fields})


def forced(kind, first=0.5, second=0.5):
    """Draws (slots,) whose first operation is of that kind."""
    uniform = np.full(len(SLOTS), 0.5, np.float32)
    values = {"kind": (OPERATIONS.index(kind) + 0.5) / len(OPERATIONS), "first": first, "second": second}
    for name, value in values.items():
        uniform[SLOTS.index(f"rand_{name}_0")] = value
    return tf.constant(uniform)


def rendered(image, policy, uniform):
    """What the pipeline makes of an image with these draws (slots,)."""
    region = tf.nest.map_structure(lambda t: t[None], fetch(image, policy, uniform))
    return render(region, uniform[None], policy, augment.IMAGENET_PCA)[0].numpy()


def by_keras_cv(keras_cv, name, images, amount, threshold=0.0):
    """The pixels of keras-cv's layer of an operation, for given parameters (batch,)."""
    layers = keras_cv.layers
    wide, column = tf.reshape(amount, (-1, 1, 1, 1)), tf.reshape(amount, (-1, 1))
    layer, parameters = {
        "auto contrast": (layers.AutoContrast((0, 255)), None),
        "equalize": (layers.Equalization((0, 255)), None),
        "solarize": (
            layers.Solarization((0, 255)), {"additions": wide, "thresholds": tf.reshape(threshold, (-1, 1, 1, 1))}
        ),
        "colour": (layers.RandomColorDegeneration(0.5), wide),
        "contrast": (layers.RandomContrast((0, 255), 0.5), wide),
        "brightness": (layers.RandomBrightness(0.5), wide),
        "shear_x": (layers.RandomShear(x_factor=0.5), {"shear_x": column, "shear_y": None}),
        "shear_y": (layers.RandomShear(y_factor=0.5), {"shear_x": None, "shear_y": column}),
        "translate_x": (
            layers.RandomTranslation(0, 0.5), {"width_translations": column, "height_translations": 0 * column}
        ),
        "translate_y": (
            layers.RandomTranslation(0.5, 0), {"width_translations": 0 * column, "height_translations": column}
        ),
    }[name]  # fmt: skip
    return layer.augment_images(tf.cast(images, tf.float32), transformations=parameters).numpy()


# Few levels, one value only, two values, little contrast: histograms that are uneven.
HARD = np.stack([
    IMAGES[0], IMAGES[1] // 64 * 60, np.full_like(IMAGES[0], 77), np.where(IMAGES[2] > 250, 255, 0),
    100 + IMAGES[3] // 8, np.minimum(IMAGES[4], 40),
])  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS[1:7])
def test_pixel_operations_give_the_pixels_of_keras_cv(keras_cv, name):
    most = {"solarize": 110, "colour": 1, "contrast": 1}.get(name, 255)
    amount = most * (AMOUNTS if name == "brightness" else np.abs(AMOUNTS))
    drawn = Operation(tf.fill(6, OPERATIONS.index(name)), amount, np.float32([0, 30, 128, 200.5, 255, 90]))
    for images in (IMAGES, HARD):
        expected = by_keras_cv(keras_cv, name, images, drawn.amount, drawn.threshold)
        for compiled in (False, True):
            got = operated(tf.cast(images, tf.float32), drawn, compiled)
            np.testing.assert_allclose(got, expected, atol=0.03)  # keras-cv's weights of grey have four digits


@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
@pytest.mark.parametrize("first", [0.02, 0.3, 0.61, 0.99])
def test_translations_give_the_pixels_of_keras_cv(keras_cv, name, first):
    policy, uniform = plain(), forced(name, first)
    amount = operations(policy, uniform)[0].amount
    expected = by_keras_cv(keras_cv, name, IMAGES[:1], amount)[0]
    np.testing.assert_allclose(rendered(IMAGES[0], policy, uniform), expected, atol=0.01)


@pytest.mark.parametrize("name", ["shear_x", "shear_y"])
@pytest.mark.parametrize(("magnitude", "sign"), [(0.1, 0.1), (0.5, 0.9), (1.0, 0.2), (1.0, 0.8)])
def test_shears_show_what_keras_cv_shows_but_antialiased(keras_cv, name, magnitude, sign):
    size = 64
    wave = 128 + 100 * np.sin(2 * np.pi * np.arange(size) / size + 0.4)
    smooth = np.stack(
        [np.add.outer(wave, wave) / 2, np.subtract.outer(wave, wave) / 2 + 128, 0 * wave + wave[:, None]], -1
    )
    policy, uniform = plain(size, rand_magnitude=magnitude), forced(name, 0.5, sign)
    amount = operations(policy, uniform)[0].amount
    assert abs(float(amount)) == pytest.approx(magnitude)
    expected = by_keras_cv(keras_cv, name, smooth[None], amount)[0]
    error = np.abs(rendered(smooth.astype(np.float32), policy, uniform) - expected)
    assert error.max() < 4 and error.mean() < 0.2  # at the reflecting border, whose kink antialiasing rounds off


def test_the_draws_have_the_distributions_of_keras_cv(keras_cv):
    tf.random.set_seed(0)
    layers = keras_cv.layers.RandAugment.get_standard_policy((0, 255), 0.5, 0.15, seed=1)
    assert len(layers) == len(OPERATIONS) - 1
    drawn = operations(Policy.rand_augment(), uniforms(5, 0, tf.range(COUNT)))[1]
    kind, amount, threshold = (value.numpy() for value in drawn)
    assert stats.chisquare(np.bincount(kind, minlength=len(OPERATIONS))).pvalue > 1e-3
    for number, (name, layer) in enumerate(zip(OPERATIONS[1:], layers, strict=True), 1):
        if name in ("auto contrast", "equalize"):
            continue
        theirs = layer.get_random_transformation_batch(4000)
        if name == "solarize":
            assert stats.ks_2samp(threshold[kind == number], np.ravel(theirs["thresholds"])).pvalue > 1e-3
            theirs = theirs["additions"]
        if isinstance(theirs, dict):
            theirs = theirs[
                {"shear": name, "trans": {"x": "width", "y": "height"}[name[-1]] + "_translations"}[name[:5]]
            ]
        assert stats.ks_2samp(amount[kind == number], np.ravel(theirs)).pvalue > 1e-3, name


def test_operations_of_one_image_are_independent():
    first, second = operations(Policy.rand_augment(), uniforms(3, 1, tf.range(COUNT)))
    table = np.zeros((len(OPERATIONS), len(OPERATIONS)))
    np.add.at(table, (first.kind, second.kind), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert abs(np.corrcoef(first.amount, second.amount)[0, 1]) < 5 / np.sqrt(COUNT)


def test_pixel_operations_follow_in_the_drawn_order(keras_cv):
    images = RNG.integers(0, 256, (60, SIZE, SIZE, 3), np.uint8)
    policy = plain(rand_operations=3, rand_magnitude=0.4, rand_stddev=0.1)
    steps = operations(policy, uniforms(7, 0, tf.range(60)))
    got = augment.apply(images, policy, seed=7).numpy()
    checked = 0
    for i in range(60):
        names = [OPERATIONS[int(step.kind[i])] for step in steps]
        if not set(names) <= set(OPERATIONS[:7]):
            continue
        image, checked = images[i : i + 1].astype(np.float32), checked + 1
        for name, step in zip(names, steps, strict=True):
            if name != "identity":
                image = np.rint(image) if name == "equalize" else image  # keras-cv truncates
                image = by_keras_cv(keras_cv, name, image, step.amount[i : i + 1], step.threshold[i : i + 1])
        close = np.abs(got[i] - image[0]) < 0.1
        assert close.mean() > 0.999, names  # but for pixels between two levels of equalize
    assert checked > 5


def test_shears_and_translations_multiply_in_the_drawn_order(keras_cv):
    size = 64
    y, x = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij")
    ramp = np.stack([2 * y + 60, 2 * x + 60, 128 + 0 * y], -1).astype(np.float32)
    policy = plain(size, rand_operations=2, rand_magnitude=0.2)
    uniform = forced("shear_x", 0.5, 0.9).numpy()
    uniform[SLOTS.index("rand_kind_1")] = (OPERATIONS.index("translate_y") + 0.5) / len(OPERATIONS)
    uniform[SLOTS.index("rand_first_1")] = 0.9
    image = ramp[None]
    for name, step in zip(("shear_x", "translate_y"), operations(policy, tf.constant(uniform)), strict=True):
        image = by_keras_cv(keras_cv, name, image, step.amount)
    inside = np.s_[16:48, 24:40]  # beyond, the border of our one image is reflected, not that of every step
    np.testing.assert_allclose(rendered(ramp, policy, tf.constant(uniform))[inside], image[0][inside], atol=0.05)


def test_nothing_happens_at_magnitude_0_where_strength_counts():
    policy = plain(rand_magnitude=0.0)
    for name in set(OPERATIONS) - {"auto contrast", "equalize"}:
        image = np.minimum(IMAGES[0], 254) if name == "solarize" else IMAGES[0]  # as keras-cv's, it inverts 255
        np.testing.assert_allclose(rendered(image, policy, forced(name, 0.3, 0.7)), image, atol=1e-3, err_msg=name)


def batches(policy, images=IMAGES, **options):
    each = augment.epoch((images, np.arange(len(images))), policy, **{"seed": 2, "batch_size": 6, **options})
    return [images.numpy() for images, _ in each]


def test_the_same_seed_gives_the_same_pixels_however_batches_are_made():
    policy = STRONG
    whole = batches(policy)[0]
    np.testing.assert_array_equal(whole, batches(policy)[0])
    sharded = [batches(policy, shard=(i, 2))[0] for i in (0, 1)]
    small = batches(policy, batch_size=3)
    np.testing.assert_array_equal(batches(policy, batch_size=3, first_batch=1)[0], small[1])
    for parts in (small, sharded):
        close = np.abs(np.concatenate(parts) - whole) < 0.05
        assert close.mean() > 0.999
    assert np.abs(whole - batches(policy, epoch=1)[0]).mean() > 5


def test_bytes_integers_and_floats_are_augmented_alike():
    policy = STRONG
    encoded = np.array([tf.io.encode_png(image).numpy() for image in IMAGES], object)
    whole = batches(policy)[0]
    for images in (IMAGES.astype(np.float32), encoded):
        assert (np.abs(batches(policy, images)[0] - whole) < 0.05).mean() > 0.999
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() <= 255


@pytest.mark.parametrize("fill", [None, (255, 0, 0)])
def test_far_shifts_of_large_images_stay_inside_the_buffers(fill):
    images = RNG.integers(0, 256, (2, 700, 900, 3), np.uint8)[[0, 1] * 16]
    policy = replace(Policy.rand_augment(24, operations=4, magnitude=1.0), fill=fill, translate=1.0, shear=20)
    out = augment.apply(images, policy, seed=0).numpy()
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 255


def test_a_shift_by_more_than_the_image_is_reflected_again(keras_cv):
    policy = plain(rand_operations=2)
    uniform = forced("translate_x", 0.99).numpy()
    for name in ("kind", "first"):
        uniform[SLOTS.index(f"rand_{name}_1")] = uniform[SLOTS.index(f"rand_{name}_0")]
    shift = sum(step.amount for step in operations(policy, uniform))
    assert float(shift) == pytest.approx(1.96)
    expected = by_keras_cv(keras_cv, "translate_x", IMAGES[:1], shift)[0]
    np.testing.assert_allclose(rendered(IMAGES[0], policy, tf.constant(uniform)), expected, atol=0.01)


def test_it_combines_with_colours_erasing_and_mixing():
    base = plain(rand_operations=2, rand_magnitude=0.3, rand_stddev=0.1)

    def each(policy, images=IMAGES):
        return np.stack([rendered(image, policy, uniforms(1, 0, i)) for i, image in enumerate(images)])

    alone = each(base)
    halved = each(base, IMAGES * np.float32(0.5))
    assert (np.abs(each(replace(base, brightness=(0.5, 0.5))) - halved) < 0.1).mean() > 0.99  # colours come first
    boxes = (each(replace(base, erase=1.0, fill=(1, 2, 3))) == (1, 2, 3)).all(-1)
    assert (boxes.mean((1, 2)) > 0.01).all()  # they come last and keep their colour
    data, mixing = (IMAGES, np.arange(6)), replace(base, mixup=1.0)
    images, labels = next(iter(augment.epoch(data, mixing, batch_size=6, seed=1, classes=6, shuffle=False)))
    share = labels.numpy()[np.arange(6), np.arange(6)][:, None, None, None]
    mixed = share * alone + (1 - share) * np.roll(alone, 1, 0)
    assert (np.abs(images - mixed) < 0.1).mean() > 0.99


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"operations": 5}, "rand_operations"),
        ({"operations": -1}, "rand_operations"),
        ({"operations": 1.5}, "rand_operations"),
        ({"operations": None}, "rand_operations"),
        ({"magnitude": 1.1}, "rand_magnitude"),
        ({"magnitude": float("nan")}, "rand_magnitude"),
        ({"stddev": -0.1}, "rand_stddev"),
        ({"stddev": "a"}, "rand_stddev"),
    ],
)
def test_impossible_values_are_named(arguments, named):
    with pytest.raises(PolicyError, match=f"^{named} is "):
        Policy.rand_augment(**arguments)


def test_test_crops_reject_it():
    with pytest.raises(PolicyError, match="rand_operations=0"):
        augment.centre_crop(IMAGES[0], Policy.rand_augment(16))


def test_previews_name_the_operations():
    shown = drawn((IMAGES, np.arange(6)), Policy.rand_augment(16, operations=4), rows=1, draws=20)
    text = " ".join(caption for row in shown for _, caption in row[1:])
    for words in (
        "identity",
        "equalize",
        "solarize +",
        "colour ",
        "contrast × ",
        "brightness ",
        "shear x ",
        "translate y ",
    ):
        assert words in text


def test_recipes_keep_it_and_earlier_ones_load():
    recipe = replace(finetune_all(16), policy=Policy.rand_augment(16, operations=3, magnitude=0.7))
    assert recipe_of(json.loads(json.dumps(recipe_facts(recipe)))) == recipe
    assert "rand_magnitude=0.7" in constructor_text(recipe)
    facts = json.loads(json.dumps(recipe_facts(finetune_all(16))))
    for name in ("rand_operations", "rand_magnitude", "rand_stddev"):
        del facts["policy"][name]
    assert recipe_of(facts) == finetune_all(16)
    assert adjusted("all", policy=Policy.rand_augment(16))


def test_policies_without_it_are_those_of_earlier_versions():
    assert constructor_text(Policy.light()).endswith("fill=None, centre=False, extra=None)")  # as before
    assert eval(constructor_text(Policy.rand_augment())) == Policy.rand_augment()
    assert asdict(Policy())["rand_operations"] == 0
