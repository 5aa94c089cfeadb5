"""The pipeline: a pure function of (seed, epoch, index), usable with plain model.fit."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import augment
from augment import Policy, PolicyError
from augment.pipeline import _compiled

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


@pytest.mark.parametrize("dataset", [source, stream, lambda: (IMAGES, LABELS)], ids=["source", "stream", "arrays"])
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


def test_independent_of_batching_and_of_order():
    whole = collect(augment.epoch(source(), POLICY, batch_size=11, seed=5))
    small = collect(augment.epoch(source(), POLICY, batch_size=3, seed=5))
    ordered = collect(augment.epoch(source(), POLICY, batch_size=3, seed=5, shuffle=False))
    np.testing.assert_array_equal(whole[1], small[1])
    np.testing.assert_allclose(whole[0], small[0], atol=1e-3)
    np.testing.assert_allclose(ordered[0][whole[1]], whole[0], atol=1e-3)


@pytest.mark.parametrize("dataset", [source, stream])
def test_independent_of_parallelism(dataset, monkeypatch):
    wanted = collect(augment.epoch(dataset(), POLICY, batch_size=4, seed=5))
    for calls in (1, 7):
        monkeypatch.setattr("augment.guard.PARALLEL_CALLS", calls)
        assert same(wanted, collect(augment.epoch(dataset(), POLICY, batch_size=4, seed=5)))


@pytest.mark.parametrize("dataset", [source, stream])
def test_a_restart_at_any_batch_sees_the_rest_of_the_epoch(dataset):
    wanted = list(augment.epoch(dataset(), POLICY, batch_size=4, seed=5, epoch=1))
    for first in range(4):
        rest = list(augment.epoch(dataset(), POLICY, batch_size=4, seed=5, epoch=1, first_batch=first))
        assert len(rest) == 3 - first
        assert all(same(a, b) for a, b in zip(wanted[first:], rest, strict=True))


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
    types = {node.type for node in spec.graph.get_operations()}
    assert not any("While" in t or "Map" in t or "PyFunc" in t for t in types), types


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


@pytest.mark.parametrize("fields", [{"short_side": (9, 13)}, {"short_side": None, "area": (0.3, 1.0)}])
def test_the_decoded_cache_changes_nothing_but_the_work(fields, tmp_path):
    policy = Policy(8, **fields)
    files = [tmp_path / str(i) for i in range(11)]
    for file, content in zip(files, PNGS, strict=True):
        file.write_bytes(content)
    paths = tf.constant([str(file) for file in files])
    on_disk = augment.Source(11, lambda i: (tf.io.read_file(tf.gather(paths, i)), i))
    wanted = [collect(augment.epoch(on_disk, policy, batch_size=4, epoch=e)) for e in range(2)]
    cached = augment.pipeline(on_disk, policy, batch_size=4, cache="decoded")
    assert same(wanted[0], collect(cached))
    for file in files:
        file.write_bytes(PNGS[0])  # nothing is decoded a second time, so this goes unnoticed
    assert same(wanted[1], collect(cached))


def test_the_cache_refuses_beyond_its_limit_with_the_figure():
    batches = augment.pipeline(stream(), POLICY, batch_size=4, cache=augment.Cache(limit=3000))
    with pytest.raises(tf.errors.InvalidArgumentError, match="limit of 3,000 bytes"):
        list(batches)


def test_the_caches_folder_goes_with_it(tmp_path):
    cache = augment.Cache(directory=str(tmp_path))
    list(augment.pipeline(stream(), POLICY, batch_size=4, cache=cache))
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == 11
    cache._folder.cleanup()
    assert not list(tmp_path.iterdir())


def test_large_photos_are_cached_no_finer_than_their_smallest_crop_needs():
    from augment.cache import decode_for

    content = tf.io.encode_jpeg(np.zeros((800, 1000, 3), np.uint8))
    assert decode_for(content, Policy(32, (40, 80))).shape == (100, 125, 3)  # 800 / 80 = 10: an eighth
    assert decode_for(content, Policy(32, None, area=(0.08, 1.0))).shape == (200, 250, 3)
    assert decode_for(tf.io.encode_png(np.zeros((90, 70, 3), np.uint8)), Policy(32, (32, 35))).shape == (45, 35, 3)


def test_extra_is_called_on_every_batch():
    policy = Policy(8, (8, 8), extra=keras.layers.Rescaling(0.5))
    plain = Policy(8, (8, 8))
    got, wanted = (collect(augment.epoch((IMAGES, LABELS), p, batch_size=4)) for p in (policy, plain))
    np.testing.assert_allclose(got[0], wanted[0] / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ([1, 2, 3], "dataset is a list"),
        ((IMAGES, LABELS[:5]), "labels"),
        ((IMAGES[0], LABELS), "images have shape"),
        (tf.data.Dataset.from_tensors((IMAGES, LABELS)), "unbatch"),
        (tf.data.Dataset.from_tensor_slices(IMAGES), "expected pairs"),
        (tf.data.Dataset.from_tensors((IMAGES[..., :2][0], 1)), "expected"),
    ],
)
def test_wrong_datasets_are_refused_where_they_are_passed(dataset, said):
    with pytest.raises(PolicyError, match=said):
        augment.pipeline(dataset, POLICY, batch_size=2)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 2, "cache": "memory"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(PolicyError, match="|".join(options)):
        augment.pipeline((IMAGES, LABELS), POLICY, **options)
