"""The pipeline: a pure function of (seed, epoch, index), usable with plain model.fit."""

import io
import os
import types
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import augment
from augment import Policy, PolicyError
from augment.draws import uniforms
from augment.mix import mix, soft_labels
from augment.pipeline import _compiled
from augment.region import open_image

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 14, 17, 3), np.uint8)
LABELS = np.arange(11)
POLICY = Policy(8, (9, 13), rotate=10, brightness=(0.8, 1.2), hue=(-10, 10))
PNGS = [tf.io.encode_png(image).numpy() for image in IMAGES]


def stream(images=PNGS):
    return tf.data.Dataset.from_tensor_slices((images, LABELS))


def source():
    table = tf.constant(PNGS)
    return augment.Source(11, lambda index: (tf.gather(table, index), index))


def collect(batches):
    """(images, labels) of one pass."""
    parts = [(images.numpy(), labels.numpy()) for images, labels in batches]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [source, stream], ids=["source", "stream"])
def test_passes_are_epochs_and_epochs_can_be_repeated(dataset):
    batches = augment.pipeline(dataset(), POLICY, batch_size=4, seed=5, epoch=2)
    second, third = collect(batches), collect(batches)
    assert sorted(second[1]) == sorted(third[1]) == list(range(11))
    assert not same(second, third) and list(second[1]) != list(third[1])
    assert same(third, collect(augment.pipeline(dataset(), POLICY, batch_size=4, seed=5, epoch=3)))
    assert same(third, collect(augment.epoch(dataset(), POLICY, batch_size=4, seed=5, epoch=3)))
    assert not same(second, collect(augment.pipeline(dataset(), POLICY, batch_size=4, seed=6, epoch=2)))


def test_all_kinds_of_dataset_give_the_same_pixels():
    results = [
        collect(augment.epoch(d, POLICY, batch_size=4, shuffle=False)) for d in (source(), stream(), (IMAGES, LABELS))
    ]
    assert same(results[0], results[1]) and same(results[0], results[2])
    assert list(results[0][1]) == list(range(11))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [POLICY, Policy(8, (8, 14), pca=0.1, contrast=(0.5, 1.5), saturation=(0.5, 1.5))])
@pytest.mark.parametrize("side", [14, 600])
def test_independent_of_batching_and_of_order(policy, side):
    """Within the 0.05 of 255 that the documentation states, also in large images of black and white noise."""
    images = np.repeat(255 * RNG.integers(0, 2, (11, side, side, 1), np.uint8), 3, -1)
    whole = collect(augment.epoch((images, LABELS), policy, batch_size=11, seed=5))
    small = collect(augment.epoch((images, LABELS), policy, batch_size=3, seed=5))
    ordered = collect(augment.epoch((images, LABELS), policy, batch_size=3, seed=5, shuffle=False))
    np.testing.assert_array_equal(whole[1], small[1])
    np.testing.assert_allclose(whole[0], small[0], atol=0.05)
    np.testing.assert_allclose(ordered[0][whole[1]], whole[0], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [pytest.param(source, marks=pytest.mark.minutes), stream])
def test_independent_of_parallelism(dataset, monkeypatch):
    wanted = collect(augment.epoch(dataset(), POLICY, batch_size=4, seed=5))
    for calls in (1, 7):
        monkeypatch.setattr("augment.guard.PARALLEL_CALLS", calls)
        assert same(wanted, collect(augment.epoch(dataset(), POLICY, batch_size=4, seed=5)))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [source, stream])
def test_a_restart_at_any_batch_sees_the_rest_of_the_epoch(dataset):
    wanted = list(augment.epoch(dataset(), POLICY, batch_size=4, seed=5, epoch=1))
    for first in range(4):
        rest = list(augment.epoch(dataset(), POLICY, batch_size=4, seed=5, epoch=1, first_batch=first))
        assert len(rest) == 3 - first
        assert all(same(a, b) for a, b in zip(wanted[first:], rest, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("count, mixup", [(2, 0.4), (4, 0.0)])
def test_shards_are_slices_of_the_batches(count, mixup):
    """From any batch on; of a last batch of three a fourth shard has nothing."""
    policy, how = replace(POLICY, mixup=mixup, cutmix=mixup), dict(batch_size=4, seed=5, epoch=1, classes=11)
    wanted = list(augment.epoch(source(), policy, first_batch=1, **how))
    for index in range(count):
        got = list(augment.epoch(source(), policy, first_batch=1, shard=(index, count), **how))
        slices = [[np.array_split(part, count)[index] for part in batch] for batch in wanted]
        assert len(got) == sum(len(labels) > 0 for _, labels in slices)
        assert all(same(a, b) for a, b in zip(got, slices, strict=False))


@pytest.mark.parametrize("shard, dataset, size", [((2, 2), source, 4), ((0, 2), stream, 4), ((0, 3), source, 2)])
def test_impossible_shards_are_refused(shard, dataset, size):
    with pytest.raises(PolicyError, match=r"has no shards|shard is|divided"):
        augment.epoch(dataset(), POLICY, batch_size=size, shard=shard)


@pytest.mark.slow
def test_a_shards_errors_name_the_example():
    table = tf.constant([*PNGS[:6], b"no image", *PNGS[7:]])
    broken = augment.Source(11, lambda i: (tf.gather(table, i), i), lambda i: tf.strings.format("photo {}", i))
    shards = [augment.epoch(broken, POLICY, batch_size=4, shuffle=False, shard=(i, 2)) for i in range(2)]
    assert len(list(shards[0])) == 3
    with pytest.raises(tf.errors.InvalidArgumentError, match="cannot read photo 6"):
        list(shards[1])


@pytest.mark.slow
def test_epoch_and_first_batch_may_be_tensors():
    wanted = list(augment.epoch(source(), POLICY, batch_size=4, epoch=3, first_batch=1))
    nested = tf.data.Dataset.from_tensors((3, 1)).flat_map(
        lambda e, b: augment.epoch(source(), POLICY, batch_size=4, epoch=e, first_batch=b)
    )
    assert all(same(a, b) for a, b in zip(wanted, nested, strict=True))


def test_apply_is_the_pipeline_without_labels():
    wanted, _ = collect(augment.epoch((IMAGES, LABELS), POLICY, batch_size=11, seed=5, shuffle=False))
    np.testing.assert_array_equal(augment.apply(IMAGES, POLICY, seed=5), wanted)
    inside = tf.data.Dataset.from_tensors(IMAGES).map(lambda images: augment.apply(images, POLICY, seed=5))
    np.testing.assert_array_equal(inside.get_single_element(), wanted)


def test_a_global_seed_changes_nothing():
    stream = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
    tf.random.set_seed(7)
    before = collect(augment.epoch(stream, POLICY, batch_size=4))
    tf.random.set_seed(0)
    after = collect(augment.epoch(stream, POLICY, batch_size=4))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16, np.int32])
def test_pixels_of_any_kind(channels, dtype):
    images = np.repeat(IMAGES[..., :1], channels, -1)
    if channels == 4:
        images[..., 3] = 255  # opaque; what is transparent is in test_augment_formats.py
    images = images.astype(dtype) * (257 if dtype == np.uint16 else 1)
    got = augment.apply(images, Policy.none(8, short_side=14), seed=0)
    np.testing.assert_allclose(got, np.repeat(IMAGES[:, 3:11, 4:12, :1], 3, -1), atol=1e-4)


def test_no_loop_over_images_in_the_batch_operation():
    kernel = _compiled(POLICY, augment.IMAGENET_PCA)
    collect(augment.epoch(source(), POLICY, batch_size=4))
    spec = next(iter(kernel._list_all_concrete_functions()))
    assert not loops(spec.graph), loops(spec.graph)
    uniform = uniforms(0, 0, tf.range(4))
    mixing = tf.function(
        lambda images, labels: mix(images, soft_labels(labels, 11), Policy(8, (8, 8), mixup=1.0, cutmix=1.0), uniform)
    )
    assert not loops(mixing.get_concrete_function(tf.zeros((4, 8, 8, 3)), tf.range(4)).graph)


def loops(graph) -> set[str]:
    """Operations that go through a batch one by one, in a graph and in all functions that it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes if any(word in node.op for word in ("While", "Map", "TensorList", "PyFunc"))}


def test_a_loop_inside_a_kernel_would_be_found():
    one_by_one = tf.function(lambda x: tf.map_fn(lambda row: row + 1, x))
    assert loops(tf.function(lambda x: one_by_one(x)).get_concrete_function(tf.zeros((3, 2))).graph)


def test_plain_model_fit():
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(11)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    seen = []
    batches = augment.pipeline((IMAGES, LABELS), POLICY, batch_size=4)

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(batch)

    history = model.fit(batches, epochs=2, verbose=0, callbacks=[Look()]).history
    assert seen == [0, 1, 2] * 2 and np.isfinite(history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"short_side": (9, 13)}, {"short_side": None, "area": (0.3, 1.0)}])
def test_the_decoded_cache_changes_nothing_but_the_work(fields, monkeypatch):
    policy, decoded = Policy(8, **fields), []
    wanted = [collect(augment.epoch(source(), policy, batch_size=4, epoch=e)) for e in range(2)]

    def counted(content):
        with tf.control_dependencies([tf.numpy_function(lambda: decoded.append(1), [], [])]):
            return open_image(content)

    monkeypatch.setattr("augment.cache.open_image", counted)
    cached = augment.pipeline(source(), policy, batch_size=4, cache="decoded")
    assert same(wanted[0], collect(cached))
    monkeypatch.undo()
    assert same(wanted[1], collect(cached))
    assert sum(decoded) == 11, "nothing is decoded a second time"


@pytest.mark.slow
def test_the_cache_follows_a_stream_that_reshuffles_itself():
    flat = [tf.io.encode_png(np.full((9, 9, 3), i, np.uint8)).numpy() for i in range(11)]
    reshuffled = stream(flat).shuffle(11, seed=3)
    batches = augment.pipeline(reshuffled, Policy.none(9), batch_size=4, cache="decoded")
    orders = []
    for _ in range(3):
        images, labels = collect(batches)
        np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
        orders.append(tuple(labels))
    assert len(set(orders)) == 3


@pytest.mark.slow
def test_pipelines_may_share_a_cache():
    cache, other = augment.Cache(), tf.data.Dataset.from_tensor_slices((PNGS[::-1], LABELS[::-1]))
    for dataset in (stream(), other):
        for policy in (Policy(2, (2, 3), pca=0.0), Policy(8, (8, 14), pca=0.0)):  # the second needs twice the pixels
            wanted = collect(augment.epoch(dataset, policy, batch_size=4, shuffle=False))
            got = collect(augment.pipeline(dataset, policy, batch_size=4, shuffle=False, cache=cache))
            np.testing.assert_allclose(got[0], wanted[0], atol=12 if policy.size == 2 else 0)  # in noise
            np.testing.assert_array_equal(got[1], wanted[1])
    assert len(os.listdir(cache._folder.name)) == 22, "each image twice: halved and whole"


@pytest.mark.slow
def test_twins_are_stored_whole_by_threads_that_meet():
    batches = augment.pipeline((PNGS[:2] * 200, [0, 1] * 200), Policy.none(8), batch_size=50, cache="decoded")
    wanted = augment.apply(IMAGES[:2], Policy.none(8), seed=0).numpy()
    for _ in range(2):
        images, labels = collect(batches)
        np.testing.assert_array_equal(images, wanted[labels])


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [6])
def test_cached_jpegs_differ_only_where_they_are_shrunk_further(orientation):
    y, x = np.mgrid[:277, :403]
    picture = np.stack([y / 277 * 255, x / 403 * 255, 128 + 60 * np.sin(x / 20)], -1).astype(np.uint8)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(file, "JPEG", quality=95, exif=exif)
    dataset = ([file.getvalue()] * 11, LABELS)
    for policy, tolerance in ((Policy(32, (40, 64), pca=0.0), 0.0), (Policy(32, (40, 138), pca=0.0), 3.0)):
        wanted = collect(augment.epoch(dataset, policy, batch_size=11))[0]
        got = collect(augment.pipeline(dataset, policy, batch_size=11, cache="decoded"))[0]
        assert np.abs(got - wanted).max() <= tolerance
        assert np.abs(got - wanted).mean() <= tolerance / 6


def test_panoramas_are_cached_as_fine_as_their_crops():
    noise = RNG.integers(0, 256, (40, 800, 3), np.uint8)
    dataset = ([tf.io.encode_png(noise).numpy()], [0])
    wanted = collect(augment.epoch(dataset, Policy.light(32), batch_size=1))
    assert same(wanted, collect(augment.pipeline(dataset, Policy.light(32), batch_size=1, cache="decoded")))


def test_the_cache_takes_encoded_images_only():
    with pytest.raises(PolicyError, match=r"cache is 'decoded', but the dataset yields decoded pixels"):
        augment.pipeline((IMAGES, LABELS), POLICY, batch_size=4, cache="decoded")


def test_the_cache_refuses_beyond_its_limit_with_the_figure():
    batches_cache = augment.Cache(limit=3000)
    batches = augment.pipeline(stream(), POLICY, batch_size=4, cache=batches_cache)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"example .* limit of 3,000 bytes"):
        list(batches)
    folder = batches_cache._folder.name
    assert 0 < sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)) <= 3000


def test_the_cache_says_when_the_disk_is_the_limit(monkeypatch):
    monkeypatch.setattr("augment.cache.shutil.disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    with pytest.raises(tf.errors.InvalidArgumentError, match="limit of 900 bytes, 90 % of the free space"):
        list(augment.pipeline(stream(), POLICY, batch_size=4, cache="decoded"))


@pytest.mark.slow
def test_what_the_user_or_the_disk_did_is_told_beside_the_name():
    cache = augment.Cache()
    batches = augment.pipeline(stream(), POLICY, batch_size=4, cache=cache, shuffle=False)
    list(batches)
    for name in os.listdir(cache._folder.name):
        os.remove(os.path.join(cache._folder.name, name))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cannot read example 0: .*No such file"):
        list(batches)

    def read(index):
        with tf.control_dependencies([tf.debugging.Assert(index != 5, ["my own assertion"])]):
            return tf.gather(tf.constant(PNGS), index), index

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cannot read number 5: .*my own assertion"):
        own = augment.Source(11, read, lambda index: tf.strings.format("number {}", index))
        list(tf.data.Dataset.range(2).flat_map(lambda e: augment.epoch(own, POLICY, batch_size=4, epoch=e)))


def test_a_shuffled_streams_error_names_the_example():
    bad = stream([*PNGS[:7], b"text", *PNGS[8:]])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cannot read example 7: .*not a JPEG, PNG"):
        list(augment.pipeline(bad, POLICY, batch_size=4))


def test_an_epochs_iterator_can_be_saved(tmp_path):
    iterator = iter(augment.epoch(source(), POLICY, batch_size=4))
    next(iterator)
    checkpoint = tf.train.Checkpoint(iterator=iterator)
    path = checkpoint.save(str(tmp_path / "state"))
    wanted = next(iterator)
    checkpoint.restore(path)
    assert same(wanted, next(iterator))


def test_the_caches_folder_goes_with_it(tmp_path):
    cache = augment.Cache(directory=str(tmp_path))
    list(augment.pipeline(stream(), POLICY, batch_size=4, cache=cache))
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == 11
    cache._folder.cleanup()
    assert not list(tmp_path.iterdir())


def test_large_photos_are_cached_no_finer_than_their_smallest_crop_needs():
    from augment.cache import decode_for

    content = tf.io.encode_jpeg(np.zeros((800, 1000, 3), np.uint8))
    assert decode_for(content, Policy(32, (40, 80))).shape == (200, 250, 3)  # 800 / 80 = 10, twice as fine
    assert decode_for(content, Policy(32, None, area=(0.08, 1.0))).shape == (400, 500, 3)
    assert decode_for(tf.io.encode_png(np.zeros((180, 140, 3), np.uint8)), Policy(32, (32, 35))).shape == (90, 70, 3)


@pytest.mark.slow
def test_extra_is_called_on_every_batch():
    policy = Policy(8, (8, 8), extra=keras.layers.Rescaling(0.5))
    plain = Policy(8, (8, 8))
    got, wanted = (collect(augment.epoch((IMAGES, LABELS), p, batch_size=4)) for p in (policy, plain))
    np.testing.assert_allclose(got[0], wanted[0] / 2, atol=1e-4)


@pytest.mark.slow
def test_extra_is_in_training_mode_and_previewed():
    policy = Policy(8, (8, 8), pca=0.0, flip=0.0, extra=keras.layers.GaussianNoise(0.9))
    noisy, plain = (
        collect(augment.epoch((IMAGES, LABELS), p, batch_size=4))[0] for p in (policy, replace(policy, extra=None))
    )
    assert np.abs(noisy - plain).std() > 0.3
    figure = augment.preview((IMAGES, LABELS), replace(policy, extra=lambda images: images * 0 + 99), rows=1)
    assert (figure.axes[1].images[0].get_array() == 99).all()
    with pytest.raises(PolicyError, match="extra"):
        augment.centre_crop(IMAGES[0], policy)


def test_labels_may_be_a_dictionary():
    _, labels = next(
        iter(augment.pipeline((IMAGES, {"a": LABELS, "b": np.eye(11)}), POLICY, batch_size=4, shuffle=False))
    )
    assert labels["a"].numpy().tolist() == [0, 1, 2, 3] and labels["b"].shape == (4, 11)


def test_nothing_gives_nothing_or_says_so():
    assert augment.apply(IMAGES[:0], POLICY, seed=0).shape == (0, 8, 8, 3)
    with pytest.raises(PolicyError, match="empty"):
        augment.preview((IMAGES[:0], LABELS[:0]), POLICY)


def shapeless(image_shape, label_shape):
    def element(i):
        image = tf.numpy_function(lambda i: IMAGES[i], [i], tf.uint8)
        label = tf.numpy_function(lambda i: i, [i], tf.int64)
        return (image if image_shape is None else tf.ensure_shape(image, image_shape)), tf.ensure_shape(
            label, label_shape
        )

    return tf.data.Dataset.range(4).map(element)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ([1, 2, 3], "dataset is a list"),
        ((IMAGES, LABELS[:5]), "labels"),
        ((IMAGES[0], LABELS), "images have shape"),
        (tf.data.Dataset.from_tensors((IMAGES, LABELS)), "unbatch"),
        (tf.data.Dataset.from_tensor_slices(IMAGES), "expected pairs"),
        (tf.data.Dataset.from_tensors((IMAGES[..., :2][0], 1)), "expected"),
        (shapeless(None, ()), r"unknown shape.*set_shape"),
        (shapeless((None, None, 3), None), r"labels have shape <unknown>.*set_shape"),
        (shapeless((None, None, 3), (None,)), r"labels have shape .None,."),
    ],
)
def test_wrong_datasets_are_refused_where_they_are_passed(dataset, said):
    with pytest.raises(PolicyError, match=said):
        augment.pipeline(dataset, POLICY, batch_size=2)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 2, "cache": "memory"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(PolicyError, match="|".join(options)):
        augment.pipeline((IMAGES, LABELS), POLICY, **options)


FRACTIONS = (IMAGES / 255).astype(np.float32)


def as_stream(images):
    return tf.data.Dataset.from_tensor_slices((images, LABELS[: len(images)]))


ENTRANCES = pytest.mark.parametrize(
    "entrance",
    [
        lambda images: list(augment.pipeline((images, LABELS), POLICY, batch_size=4)),
        lambda images: list(augment.pipeline(as_stream(images), POLICY, batch_size=4)),
        lambda images: augment.apply(images, POLICY, seed=0),
        lambda images: tf.function(lambda x: augment.apply(x, POLICY, seed=0))(images),
        lambda images: augment.centre_crop(images[0], Policy.none(8)),
        lambda images: augment.preview(as_stream(images), POLICY, rows=1),
        lambda images: augment.fit_pca((images, LABELS)),
        lambda images: augment.fit_pca(as_stream(images)),
        lambda images: augment.multicrop((8,), 1, 8)(images[0]),
        lambda images: augment.whole(images[0], 8),
    ],
    ids=[
        "arrays",
        "stream",
        "apply",
        "apply in a graph",
        "centre",
        "preview",
        "pca",
        "pca stream",
        "multicrop",
        "whole",
    ],
)


@ENTRANCES
@pytest.mark.parametrize("kind", [bool, np.complex64])
def test_pixels_that_are_no_real_numbers_are_refused_at_every_entrance(entrance, kind):
    with pytest.raises(Exception, match=rf"are of the type {np.dtype(kind).name}; expected numbers in 0..255"):
        entrance(IMAGES.astype(kind))


@ENTRANCES
def test_values_of_0_to_1_are_refused_at_every_entrance(entrance):
    with pytest.raises((PolicyError, tf.errors.InvalidArgumentError), match="multiply them by 255"):
        entrance(FRACTIONS)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (FRACTIONS.astype(np.float64), "multiply them by 255"),
        (FRACTIONS * 510 - 255, "undo your preprocessing"),
        (FRACTIONS * 300, "undo your preprocessing"),
        (IMAGES.astype(np.int32) * 2, "undo your preprocessing"),
        (np.full_like(FRACTIONS, np.nan), "NaN or infinite"),
    ],
)
def test_values_other_than_0_to_255_are_refused(images, said):
    with pytest.raises(PolicyError, match=said):
        augment.pipeline((images, LABELS), POLICY, batch_size=4)
    with pytest.raises(PolicyError, match=said):
        augment.centre_crop(images[0], Policy.none(8))


def test_a_streams_preprocessed_image_is_named():
    images = np.concatenate([IMAGES[:3].astype(np.float32), FRACTIONS[3:4] - 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cannot read example 3: .*undo your preprocessing"):
        list(augment.epoch(as_stream(images), POLICY, batch_size=4))


def test_dark_images_among_others_and_masks_are_no_fault():
    masks = np.zeros_like(FRACTIONS)
    masks[:, :2] = 1
    images, _ = collect(augment.epoch(as_stream(masks), Policy.none(8), batch_size=4))
    assert images.min() >= 0 and images.max() <= 1
    one_dark = np.concatenate([FRACTIONS[:1], IMAGES[1:].astype(np.float32)])
    for dataset in (as_stream(one_dark), (one_dark, LABELS)):
        images, _ = collect(augment.epoch(dataset, Policy.none(8), batch_size=11, shuffle=False))
        assert images[0].max() <= 1 and images[1:].max() > 200
    assert augment.apply(np.zeros_like(FRACTIONS), Policy.none(8), seed=0).numpy().max() == 0
