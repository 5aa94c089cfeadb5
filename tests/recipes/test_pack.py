"""Packs: the same dataset in few files, and nothing that was altered is trained on."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from assertions import Ending, rejects
from makers import arrays, folder, jpeg, picture
from typer.testing import CliRunner

import augment
import recipes
from recipes import DataError, OutputError
from recipes.auditing.facts import inspect_images
from recipes.cli import app
from recipes.data.folders.layout import LayoutError
from recipes.data.images import ImageData, joined
from recipes.data.packs.manifest import MANIFEST, sha256
from recipes.data.packs.records import Records
from recipes.data.sources import load
from recipes.training.loop.failures import reading_failed


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    folder(root / "train", per_class=7)
    folder(root / "val", per_class=2, seed=1)
    (root / "val" / "red" / "ünïcode photo.jpg").write_bytes(jpeg(picture((210, 50, 40), 99)))
    (root / "train" / "red" / os.fsdecode(b"not-utf8-\xff.jpg")).write_bytes(jpeg(picture((210, 50, 40), 98)))
    return root


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "packed"
    recipes.pack(photos, out, shards=4)
    return out


@pytest.fixture
def packed(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "packed")


def contents(data: ImageData) -> list[bytes]:
    return [data.encoded(i) for i in range(len(data))]


def described(out, **changes):
    """Write the manifest of a pack with changed entries."""
    manifest = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def with_index(out, **columns):
    """Write an index with changed columns, and the manifest that fits it."""
    with np.load(out / "index.npz") as arrays:
        columns = dict(arrays) | columns
    np.savez(out / "index.npz", **columns)
    described(out, index=sha256(out / "index.npz"))


def test_a_pack_holds_what_the_folder_holds(photos, whole):
    before, after = load(photos).given, load(whole).given
    assert before.keys() == after.keys() == {"train", "validation"}
    for split, data in before.items():
        assert contents(data) == contents(after[split])
        assert data.class_names == after[split].class_names
        np.testing.assert_array_equal(data.labels, after[split].labels)
        names = [name.replace(str(photos), str(whole)) for name in data.names]
        assert list(after[split].names) == names


def test_the_shards_are_what_others_read(photos, whole):
    """An oracle: TensorFlow's own reader and parser."""
    found = {}
    for shard in whole.glob("*.tfrecord"):
        for record in tf.data.TFRecordDataset(str(shard)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            name = os.fsdecode(features["name"].bytes_list.value[0])
            found[name] = features["image"].bytes_list.value[0]
            assert name.split("/")[1] == features["class"].bytes_list.value[0].decode()
            assert shard.name.startswith({"train": "train", "val": "validation"}[name.split("/")[0]])
    assert found == {str(p.relative_to(photos)): p.read_bytes() for p in photos.rglob("*.jpg")}


def test_the_manifest_describes_every_shard(whole):
    manifest = json.loads((whole / MANIFEST).read_text())
    assert manifest["images"] == {"train": 22, "validation": 7}
    assert [shard["name"] for shard in manifest["shards"]][:2] == [f"train-0000{i}-of-00004.tfrecord" for i in range(2)]
    for shard in manifest["shards"]:
        content = (whole / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert {p.name for p in whole.iterdir()} == {
        MANIFEST,
        "index.npz",
        *(shard["name"] for shard in manifest["shards"]),
    }


def test_packing_twice_gives_the_same_bytes_and_mixed_shards(photos, whole, tmp_path):
    recipes.pack(photos, tmp_path / "again", shards=4)
    for shard in whole.glob("*.tfrecord"):
        assert (tmp_path / "again" / shard.name).read_bytes() == shard.read_bytes()
    labels = [
        [tf.train.Example.FromString(r).features.feature["label"].int64_list.value[0] for r in records]
        for shard in sorted(whole.glob("train-*"))
        if (records := list(tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()))
    ]
    assert sum(len(set(part)) > 1 for part in labels) == len(labels)


def test_the_same_batches_as_from_the_folder(photos, whole):
    policy = augment.Policy.light(32)
    of_folder, of_pack = (
        list(augment.epoch(load(data).train.source(), policy, batch_size=8, seed=3, epoch=2).as_numpy_iterator())
        for data in (photos, whole)
    )
    assert len(of_folder) == 3
    for (images, labels), (images_, labels_) in zip(of_folder, of_pack, strict=True):
        np.testing.assert_array_equal(images, images_)
        np.testing.assert_array_equal(labels, labels_)


def test_parts_of_a_pack_are_not_read(whole, monkeypatch):
    splits = load(whole)
    monkeypatch.setattr("os.pread", None)
    held_out = splits.validation.subset([1])
    part = joined(splits.train.subset([5, 2, 0]), held_out)
    assert isinstance(part.images, Records) and len(part.images) == 4
    assert repr(part.images) == repr(joined(load(whole).train.subset([5, 2, 0]), held_out).images)
    assert repr(part.images) != repr(joined(splits.train.subset([2, 5, 0]), held_out).images)
    monkeypatch.undo()
    assert contents(part) == [splits.train.encoded(i) for i in (5, 2, 0)] + [splits.validation.encoded(1)]


def test_pixels_bytes_and_packs_are_packed(whole, tmp_path):
    images, names = arrays(3)
    recipes.pack((images, names), tmp_path / "pixels")
    train = load(tmp_path / "pixels").train
    np.testing.assert_array_equal([augment.decode(image) for image in contents(train)], images)
    recipes.pack((contents(train), list(names)), tmp_path / "bytes", shards=2)
    assert contents(load(tmp_path / "bytes").train) == contents(train)
    recipes.pack(whole, tmp_path / "other", shards=1)
    for split, data in load(tmp_path / "other").given.items():
        assert contents(data) == contents(load(whole).given[split])
    with rejects(DataError, "pack.fractions", match="round the values"):
        recipes.pack((images + np.float32(0.5), names), tmp_path / "floats")


def test_the_command(photos, tmp_path):
    done = CliRunner().invoke(app, ["pack", str(photos), str(tmp_path / "out"), "--shards", "2"])
    assert done.exit_code == 0, done.exception
    assert "22 train, 7 validation images of 3 classes" in done.output and "recipes finetune" in done.output
    assert len(list((tmp_path / "out").glob("*.tfrecord"))) == 3


@pytest.mark.parametrize("shards", [0, -1, 23, 100_000, 1.5, True])
def test_shards(photos, tmp_path, shards):
    with rejects(DataError, "pack.shards", value=shards):
        recipes.pack(photos, tmp_path / "out", shards=shards)
    assert not (tmp_path / "out").exists()


def test_unreadable_files_are_named_before_anything_is_written(tmp_path):
    root = folder(tmp_path / "photos", per_class=3)
    (root / "red" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "blue" / "pipe.jpg")
    unreadable = (str(root / "blue" / "pipe.jpg"), str(root / "red" / "gone.jpg"))
    reasons = (Ending("a pipe, a device or a folder"), Ending("No such file or directory"))
    with rejects(DataError, "pack.unreadable_images", images=unreadable, reasons=reasons):
        recipes.pack(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_room(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("", (), {"free": 1000}))
    with rejects(OutputError, "pack.disk_full", path=tmp_path / "out", free=1000):
        recipes.pack(photos, tmp_path / "out")


def test_the_disk_fills_up_and_the_pack_goes_on(photos, tmp_path, monkeypatch, capsys):
    """A limit on the size of files stands for a full disk: the writer meets the error of the system."""
    import resource

    out, limits = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
        with rejects(OutputError, "pack.unwritable", path=out, match="free some space, then run the same"):
            recipes.pack(photos, out, shards=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(out.glob(".new-*")) and not (out / MANIFEST).exists()
    with rejects(DataError, "pack.unfinished", path=out):
        load(out)
    recipes.pack(photos, out, shards=4)
    assert contents(load(out).train) == contents(load(photos).train)


def test_a_stopped_pack_is_resumed_and_others_are_rejected(photos, whole, packed, capsys):
    (packed / MANIFEST).unlink()
    complete, lost = sorted(packed.glob("train-*"))[:2]
    lost.rename(packed / f".new-{lost.name}")
    before = complete.stat().st_mtime_ns
    source = json.loads((whole / MANIFEST).read_text())["source"]
    (packed / "unfinished.json").write_text(json.dumps({"source": source}))
    with rejects(OutputError, "pack.other_beginning", path=packed):
        recipes.pack(photos, packed, shards=3)
    recipes.pack(photos, packed, shards=4)
    assert "of 5 shards are written" in capsys.readouterr().out
    assert complete.stat().st_mtime_ns == before
    assert {p.name for p in packed.iterdir()} == {p.name for p in whole.iterdir()}
    assert contents(load(packed).train) == contents(load(whole).train)
    recipes.pack(photos, packed, shards=4)
    assert "already holds this pack" in capsys.readouterr().out
    with rejects(OutputError, "pack.other_pack", path=packed):
        recipes.pack(photos, packed, shards=2)
    with rejects(OutputError, "pack.not_empty", path=photos, names=("train", "val")):
        recipes.pack(photos, photos)
    with rejects(OutputError, "pack.inside_dataset", path=photos / "train" / "packed", dataset=photos):
        recipes.pack(photos, photos / "train" / "packed")


def test_a_shard_that_changed_while_the_pack_was_stopped(photos, packed):
    (packed / "unfinished.json").write_text(
        json.dumps({"source": json.loads((packed / MANIFEST).read_text())["source"]})
    )
    (packed / MANIFEST).unlink()
    first, second = sorted(packed.glob("train-*"))[:2]
    whole, records = first.read_bytes(), list(tf.data.TFRecordDataset(str(first)).as_numpy_iterator())
    fewer, junk = packed / "fewer", packed / "junk"
    for path, held in ((fewer, records[:-1]), (junk, [b"no example"])):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in held:
                writer.write(record)
    contents = (fewer.read_bytes(), junk.read_bytes(), second.read_bytes(), whole[:-1], whole[:-200], whole + b"1")
    fewer.unlink(), junk.unlink()
    for content in contents:
        first.write_bytes(content)
        code = "pack.truncated" if content.startswith(whole[:-200]) else "pack.altered"
        with rejects(DataError, code, path=first):
            recipes.pack(photos, packed, shards=4)
    first.unlink()
    recipes.pack(photos, packed, shards=4)
    assert first.read_bytes() == whole


@pytest.mark.minutes
def test_killed_at_any_instant(photos, tmp_path):
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        arguments = f"{str(photos)!r}, {str(tmp_path / 'out')!r}, shards=22"
        code = f"import recipes; print(1, flush=True); recipes.pack({arguments})"
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.kill()
    recipes.pack(photos, tmp_path / "out", shards=22)
    assert contents(load(tmp_path / "out").train) == contents(load(photos).train)


def test_a_shard_that_is_cut_off_or_missing(packed):
    shard = sorted(packed.glob("train-*"))[1]
    size = shard.stat().st_size
    os.truncate(shard, 100)
    with rejects(DataError, "pack.altered", path=shard, size=100, expected=size):
        load(packed)
    shard.unlink()
    with rejects(DataError, "pack.unreadable", path=shard, match="No such file"):
        load(packed)


def test_an_altered_shard(packed):
    """Whichever byte it is: of a picture, of a length, of a checksum, which TensorFlow alone looks at."""
    shard = sorted(packed.glob("train-*"))[1]
    content = shard.read_bytes()
    for place, message in ((700, r"\(record at byte"), (0, "no record of")):
        shard.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with rejects(DataError, "pack.altered", path=packed, shards=(shard.name,)):
            recipes.audit(packed)
        with rejects(DataError, "pack.altered", path=shard, match=message):
            inspect_images(load(packed).train)
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with rejects(DataError, "pack.altered", path=packed, shards=(shard.name,)):
        recipes.audit(packed)
    train = load(packed).train
    inspect_images(train)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cannot read .*\.jpg: corrupted record") as raised:
        list(augment.epoch(train.source(), augment.Policy.none(32), batch_size=8, shuffle=False))
    assert "cannot read" in str(reading_failed(raised.value, train))
    shard.unlink()
    error = reading_failed(raised.value, train)
    assert error.code == "data.vanished" and len(error.paths) == len(train.images.lost().nonzero()[0])


def test_manifests_that_lie(packed):
    manifest = json.loads((packed / MANIFEST).read_text())
    first, *others = manifest["shards"]
    for changes, code, problem in (
        ({"version": 2}, "pack.version", None),
        ({"version": "1" * 10**6}, "pack.version", None),
        ({"format": "another"}, "pack.not_a_pack", None),
        ({"class_names": ["a", "a"]}, "pack.damaged", "class_names is not a list of different names"),
        ({"class_names": 7}, "pack.damaged", "class_names is not a list of different names"),
        ({"shards": []}, "pack.damaged", "shards is not a list of files"),
        ({"shards": {}}, "pack.damaged", "shards is not a list of files"),
        ({"shards": [first, first]}, "pack.damaged", "a shard is listed twice"),
        ({"shards": [{**first, "name": "../../etc/passwd"}]}, "pack.damaged", "a shard is named '../../etc/passwd'"),
        ({"shards": [{**first, "name": "/etc/passwd"}]}, "pack.damaged", "a shard is named '/etc/passwd'"),
        ({"shards": [{**first, "split": "test"}]}, "pack.damaged", "a shard is named 'train-"),
        ({"shards": [{**first, "images": 10**18}]}, "pack.damaged", "images in"),
        ({"shards": [{**first, "images": "7"}]}, "pack.damaged", "does not have the entries"),
        ({"shards": [{**first, "images": first["images"] + 1}, *others]}, "pack.index", "it does not have"),
        ({"index": None}, "pack.damaged", "source or index is missing"),
        ({"index": "0" * 64}, "pack.altered", None),
    ):
        described(packed, **{**manifest, **changes})
        with rejects(DataError, code) as caught:
            load(packed)
        if problem is not None:
            assert problem in caught.value.problem
    for text in ("", "[]", "[" * 100_000, "null", "\udcff"):
        (packed / MANIFEST).write_text(text, errors="surrogateescape")
        code = "pack.not_a_pack" if text in ("[]", "null") else "pack.unreadable"
        with rejects(DataError, code, path=packed / MANIFEST):
            load(packed)


def test_indices_that_lie(packed):
    with np.load(packed / "index.npz") as arrays:
        columns = dict(arrays)
    size, order, ends = columns["size"], columns["order"], columns["name_end"]
    swapped = size.copy()
    swapped[0] += 1
    for change, problem in (
        ({"size": np.where(np.arange(len(size)) == 1, 2**62, size)}, "a record is larger than its shard"),
        ({"size": np.where(np.arange(len(size)) == 1, -1, size)}, "a record is larger than its shard"),
        ({"size": swapped}, "the lengths of the records in a shard do not add up to its size"),
        ({"size": size.astype(np.float64)}, "its columns have the types"),
        ({"size": size[:-1]}, "it does not have 29 rows"),
        ({"size": size[:, None]}, "its columns have the types"),
        ({"label": columns["label"] + 1}, "a label is not a class"),
        ({"label": columns["label"] - 1}, "a label is not a class"),
        ({"order": np.zeros_like(order)}, "two images have the same position in a split"),
        ({"name_end": ends + 1}, "the byte ranges of the names overlap"),
        ({"name_end": ends[::-1].copy()}, "the byte ranges of the names overlap"),
        ({"more": size}, "its columns have the types"),
        ({"size": np.array([{}] * len(size), object)}, None),
    ):
        with_index(packed, **columns)
        with_index(packed, **change)
        with rejects(DataError, "pack.index" if problem else "pack.unreadable", path=packed / "index.npz") as caught:
            load(packed)
        if problem is not None:
            assert problem in caught.value.problem
        np.savez(packed / "index.npz", **columns)
    (packed / "index.npz").write_bytes(b"no zip file")
    described(packed, index=sha256(packed / "index.npz"))
    with rejects(DataError, "pack.unreadable", path=packed / "index.npz"):
        load(packed)


def test_a_folder_of_shards_without_manifest(packed):
    (packed / MANIFEST).unlink()
    with rejects(LayoutError, "layout.not_a_pack", path=packed):
        load(packed)


@pytest.mark.minutes
def test_a_run_finds_its_held_out_images_in_the_pack(photos, packed, tmp_path):
    """And the same seed trains the same from folder and pack."""
    from makers import small_network

    network = str(tmp_path / "small.keras")
    small_network(tmp_path / "small.keras")
    results = [
        recipes.finetune(data, backbone=network, recipe="probe", output=tmp_path / name)
        for name, data in (("a", photos), ("b", packed))
    ]
    for first, second in zip(*(result.model.get_weights() for result in results), strict=True):
        np.testing.assert_array_equal(first, second)
    again = recipes.load(tmp_path / "b")
    assert contents(again.held_out) == contents(load(photos).validation)
    assert again.evaluate(packed).accuracy == results[0].evaluate(photos).accuracy
    again.report(tmp_path / "report.html")
    shutil.rmtree(packed)
    recipes.load(tmp_path / "b").report(tmp_path / "without.html")
    assert recipes.load(tmp_path / "b").held_out is None
