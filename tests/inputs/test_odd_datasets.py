"""Folders and CSVs that are unusual or hostile: what is reported about them, and what is never read."""

import os
import shutil

import numpy as np
import pytest
from assertions import Ending, rejects
from odd_images import encoded, photo

from recipes import DataError, audit, finetune, from_csv
from recipes.auditing.audit import Audit, usable
from recipes.auditing.facts import Facts, inspect_images
from recipes.auditing.rules import AuditedImage, audited_images, near_duplicates
from recipes.data.folders.reader import images_of
from recipes.data.sources import load
from recipes.data.split import stratified_split

FILES = [encoded(photo(30 + i), "JPEG") for i in range(12)]


def fill(folder, *counts: int, names="abcd", first: int = 0):
    """Class folders with so many images each, all of them different."""
    files = iter(FILES[first:])
    for name, count in zip(names, counts, strict=False):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.jpg").write_bytes(next(files))
    return folder


def found(dataset) -> dict[str, tuple[str, ...]]:
    return {finding.kind: tuple(map(os.path.basename, finding.files)) for finding in audit(dataset).findings}


def test_sound_folder(tmp_path):
    assert found(fill(tmp_path, 4, 4)) == {}


@pytest.mark.parametrize(
    "names", [("Cat", "cat"), ("cat", "cat "), ("red fox", "red_fox"), ("ﬁsh", "fish"), ("straße", "STRASSE")]
)
def test_alike_class_names(tmp_path, names):
    fill(tmp_path, 3, 3, names=names)
    (finding,) = audit(tmp_path).findings
    assert finding.kind == "alike class names" and sorted(finding.files) == sorted(map(repr, names))


def test_class_names_of_signs_only_are_not_alike(tmp_path):
    assert found(fill(tmp_path, 3, 3, names=("+", "-"))) == {}


def test_class_too_small_to_split(tmp_path):
    fill(tmp_path, 4, 2)
    assert found(tmp_path) == {"class too small to split": ("b (2)",)}
    fill(tmp_path / "given" / "train", 4, 2)
    fill(tmp_path / "given" / "val", 1, 1, first=6)
    assert found(tmp_path / "given") == {}


def test_copies_do_not_make_a_class_large_enough(tmp_path):
    fill(tmp_path, 4, 2)
    shutil.copy(tmp_path / "b" / "0.jpg", tmp_path / "b" / "copy.jpg")
    assert found(tmp_path) == {"duplicate": ("0.jpg", "copy.jpg"), "class too small to split": ("b (3)",)}


def test_imbalance_counts_readable_images(tmp_path):
    fill(tmp_path, 8, 3)
    assert found(tmp_path) == {}
    (tmp_path / "b" / "2.jpg").write_bytes(b"")
    assert found(tmp_path)["imbalance"] == ("a (8)", "b (2)")


def test_empty_class_folder(tmp_path):
    (fill(tmp_path, 4, 4) / "c").mkdir()
    assert found(tmp_path)["class too small to split"] == ("c (0)",)
    splits = load(tmp_path)
    with rejects(DataError, "audit.small_class", classes=("c (0)",)):
        usable(splits, audit(splits))


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(fill(tmp_path, 4, 4) / "a" / "pipe.jpg")
    assert found(tmp_path) == {"no regular file": ("pipe.jpg",)}


@pytest.mark.parametrize("target", ["gone.jpg", "broken.jpg"])
def test_broken_links(tmp_path, target):
    """The second leads to itself."""
    (fill(tmp_path, 4, 4) / "a" / "broken.jpg").symlink_to(target)
    assert found(tmp_path) == {"cannot be read": ("broken.jpg",)}


def test_no_permission(tmp_path, monkeypatch):
    closed = fill(tmp_path, 4, 4) / "a" / "1.jpg"
    if os.geteuid():
        closed.chmod(0)
    else:  # root may read everything
        encoded_as_before = type(load(tmp_path).train).encoded

        def refuse(data, index):
            if data.images[index] == str(closed):
                raise PermissionError(13, "Permission denied")
            return encoded_as_before(data, index)

        monkeypatch.setattr("recipes.data.images.ImageData.encoded", refuse)
    (finding,) = audit(tmp_path).findings
    assert finding.files == (str(closed),) and "Permission denied" in finding.action and finding.excluded


def test_closed_folder(tmp_path, monkeypatch):
    inner = fill(tmp_path, 4, 4) / "a" / "inner"
    inner.mkdir()
    list_before = os.scandir

    def refuse(path):
        if os.fspath(path) == str(inner):
            raise PermissionError(13, "Permission denied", str(inner))
        return list_before(path)

    monkeypatch.setattr("os.scandir", refuse)
    assert found(tmp_path) == {"unreadable folder": ("inner",)}


def test_link_loop(tmp_path):
    (fill(tmp_path, 4, 4) / "a" / "again").symlink_to(tmp_path / "a", target_is_directory=True)
    assert found(tmp_path) == {"symbolic link loop": ("again",)}
    assert len(load(tmp_path).train) == 8


def test_folder_linked_twice(tmp_path):
    store = fill(tmp_path / "store", 2, names=("inner",), first=8) / "inner"
    data = fill(tmp_path / "data", 4, 4)
    for name in ("one", "two"):
        (data / "a" / name).symlink_to(store, target_is_directory=True)
    assert found(data) == {"folder linked twice": ("two",)}
    assert len(load(data).train) == 10


@pytest.mark.parametrize(
    "name", [b"caf\xe9.jpg", b"new\nline.jpg", b" blank .jpg", "日本.jpg".encode(), b"a" * 250 + b".jpg", b"[red].jpg"]
)
def test_odd_file_names(tmp_path, name):
    path = os.path.join(os.fsencode(fill(tmp_path, 4, 4) / "a"), name)
    with open(path, "wb") as file:
        file.write(FILES[-1])
    expected = {"name not UTF-8": (os.fsdecode(name),)} if name == b"caf\xe9.jpg" else {}
    assert found(tmp_path) == expected
    str(audit(tmp_path)).encode()


def test_folder_with_an_images_name(tmp_path):
    fill(tmp_path, 4, 4)
    fill(tmp_path / "a", 1, names=("deep.jpg",), first=9)
    assert found(tmp_path) == {} and len(load(tmp_path).train) == 9


def test_other_and_hidden_files(tmp_path):
    fill(tmp_path, 4, 4)
    for name in ("readme.txt", ".hidden.jpg", "table.csv"):
        (tmp_path / "a" / name).write_bytes(b"x")
    assert found(tmp_path) == {"not read": ("readme.txt", "table.csv")}


@pytest.mark.parametrize("across", ["splits", "classes"])
def test_duplicates_across(tmp_path, across):
    fill(tmp_path / "train", 3, 3)
    fill(tmp_path / "val", 1, 1, first=6)
    target = {"splits": tmp_path / "val" / "a", "classes": tmp_path / "train" / "b"}[across]
    shutil.copy(tmp_path / "train" / "a" / "0.jpg", target / "copy.jpg")
    assert found(tmp_path) == {f"duplicate across {across}": ("0.jpg", "copy.jpg")}


@pytest.mark.parametrize("across", ["splits", "classes"])
def test_near_duplicates_across(tmp_path, across):
    fill(tmp_path / "train", 3, 3)
    fill(tmp_path / "val", 1, 1, first=6)
    target = {"splits": tmp_path / "val" / "a", "classes": tmp_path / "train" / "b"}[across]
    (target / "smaller.png").write_bytes(encoded(photo(30).resize((80, 64)), "PNG"))
    assert found(tmp_path) == {f"near-duplicate across {across}": ("0.jpg", "smaller.png")}


def test_near_duplicates_stay_together_in_a_split(tmp_path):
    fill(tmp_path, 6, 6)
    for i in range(3):
        (tmp_path / "a" / f"smaller{i}.png").write_bytes(encoded(photo(30 + i).resize((80, 64)), "PNG"))
    splits = load(tmp_path)
    facts, train = audit(splits), splits.train
    assert len(facts.same) == 6
    for seed in range(10):
        inside, outside = stratified_split(train.labels, facts.pictures(train), 0.4, seed=seed)
        stems = [
            {os.path.basename(train.names[i])[-5] for i in part if "/a/" in train.names[i]}
            for part in (inside, outside)
        ]
        assert stems[0].isdisjoint(stems[1])


def test_no_test_image_decides_what_a_split_keeps_together():
    """One between two others is told of, and links them not; many that are alike do not move what counts as alike."""
    random = np.random.default_rng(0)
    thumbnail, noise = random.integers(60, 190, 256), random.normal(0, 18, 256)
    others = [(int(bits), thumbnail + random.normal(0, 1, 256)) for bits in random.integers(2**40, 2**63, 60)]

    def image(name, split, bits, pixels):
        signature = bits, np.clip(pixels, 0, 255).astype(np.uint8).tobytes()
        return AuditedImage(name, split, 0, Facts(fingerprint=name, signature=signature))

    one, other, between = ((2 ** (5 * n) - 1, thumbnail) for n in (0, 2, 1))
    used = [image("b", "train", *one), image("c", "train", *other), image("d", "train", one[0] ^ 1, thumbnail + noise)]
    tests = [image("a", "test", *between), *(image(f"e{i}", "test", *each) for i, each in enumerate(others))]
    findings, same = near_duplicates(used + tests)
    assert same == near_duplicates(used)[1] == {"b": "b", "d": "b"}
    assert [finding.kind for finding in findings] == ["near-duplicate across splits"]
    assert sorted(findings[0].files) == ["a", "b", "c", "d"]


def test_class_of_near_duplicates_alone_is_still_split(tmp_path):
    fill(tmp_path, 4)
    (tmp_path / "b").mkdir()
    for side in range(64, 70):
        (tmp_path / "b" / f"{side}.png").write_bytes(encoded(photo(99).resize((side, 64)), "PNG"))
    splits = load(tmp_path)
    pictures = audit(splits).pictures(splits.train)
    assert len(set(pictures)) == 10
    stratified_split(splits.train.labels, pictures)


def test_many_copies_are_placeholders_or_the_datasets_way(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (1000, 8, 8, 3)).astype(np.uint8)
    images[:12] = images[0]
    labels = np.arange(1000) % 2
    assert len(audit((images, labels)).excluded) == 12
    images[:200] = 7
    (kind, *_) = found((images, labels))
    assert kind == "flat picture" and not audit((images, labels)).excluded


def test_strict(tmp_path):
    audit(fill(tmp_path, 4, 4), strict=True)
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    with rejects(DataError, "audit.findings") as caught:
        audit(tmp_path, strict=True)
    (finding,) = caught.value.findings
    assert (finding.kind, finding.files) == ("zero bytes", (str(tmp_path / "a" / "empty.jpg"),))
    with rejects(DataError, "audit.findings"):
        finetune(tmp_path, backbone="glyphs", strict=True)


def test_the_audit_is_deterministic(tmp_path):
    fill(tmp_path, 6, 6)
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    assert [audit(tmp_path) for _ in range(2)] == [audit(tmp_path)] * 2


def test_nothing_is_read_twice(tmp_path, monkeypatch):
    splits = load(fill(tmp_path, 4, 4))
    read, before = [], type(splits.train).encoded
    monkeypatch.setattr("recipes.data.images.ImageData.encoded", lambda data, i: read.append(i) or before(data, i))
    audit(splits)
    assert sorted(read) == list(range(8))


def test_a_validation_dataset_with_splits_of_its_own(tmp_path, capsys, rendered):
    from recipes.training.prepare import with_validation

    fill(tmp_path / "other" / "train", 1, 1, first=6)
    fill(tmp_path / "other" / "val", 2, 1, first=8)
    splits = with_validation(load(fill(tmp_path / "own", 3, 3)), tmp_path / "other")
    assert len(splits.validation) == 2 and "['train', 'validation']" in capsys.readouterr().out


def test_excluded_only_on_the_side_that_it_is_on():
    """Images in memory have no names of their own."""
    from recipes.training.prepare import with_validation

    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 8, 8, 3)).astype(np.uint8)
    flat = images.copy()
    flat[3] = 0
    splits = with_validation(load((images, [0, 1] * 4)), (flat, [0, 1] * 4))
    usable_splits, _ = usable(splits, audit(splits))
    assert (len(usable_splits.train), len(usable_splits.validation)) == (8, 7)


def test_near_duplicates_of_nothing():
    splits = load((np.zeros((2, 8, 8, 3), np.uint8), [0, 1]))
    assert near_duplicates(audited_images(splits, {"train": inspect_images(splits.train)})) == ([], {})
    assert str(Audit((), {})) == "nothing odd"


@pytest.fixture
def listed(tmp_path):
    """A folder to keep to, with a secret beside it."""
    fill(tmp_path / "inside", 2, 2)
    fill(tmp_path / "outside", 1, names=("secret",), first=6)
    return tmp_path / "inside"


def write(listed, *rows: str, encoding="utf-8"):
    (listed / "list.csv").write_bytes("\n".join(("path,label", *rows)).encode(encoding))
    return listed / "list.csv"


@pytest.mark.parametrize("form", ["absolute", "dots", "link", "linked folder"])
def test_csv_paths_stay_inside(listed, form):
    secret = listed.parent / "outside" / "secret" / "0.jpg"
    (listed / "link.jpg").symlink_to(secret)
    (listed / "linked").symlink_to(secret.parent)
    name = {"absolute": str(secret), "dots": "a/../../outside/secret/0.jpg", "link": "link.jpg",
            "linked folder": "linked/0.jpg"}[form]  # fmt: skip
    path = write(listed, "a/0.jpg,x", f"{name},y")
    row = f"{path} row 3"
    with rejects(DataError, "table.outside", row=row, within=str(listed), match="--within"):
        load(path)
    assert len(from_csv(path, within=listed.parent).train) == 2


@pytest.mark.parametrize(
    ("row", "code", "attributes"),
    [
        ("a/1.jpg", "table.cells", dict(row=Ending(" row 3"), cells=1, expected=2)),
        ("a/1.jpg, ", "table.missing_labels", dict(rows=(Ending(" row 3"),))),
        ("a,y", "table.missing_files", dict(files=("a",), rows=(Ending(" row 3"),), match="a is a folder")),
        (",y", "table.no_file", dict(row=Ending(" row 3"))),
        ("a/\0.jpg,y", "table.encoding", dict(encodings=("utf-8",))),
        ('"' + "z" * 200_000 + '",y', "table.csv", dict(line=3, match="field larger")),
        ("file:///etc/passwd,y", "table.missing_files", dict(files=("file:///etc/passwd",))),
        ("~/.ssh/id,y", "table.missing_files", dict(files=("~/.ssh/id",))),
    ],
)
def test_csv_rows_that_are_wrong(listed, row, code, attributes):
    with rejects(DataError, code, **attributes):
        load(write(listed, "a/0.jpg,x", row))


def test_csv_with_one_image_under_two_labels(listed):
    path = write(listed, "a/0.jpg,x", "a/0.jpg,y", "a/1.jpg,x", "b/0.jpg,y")
    rows = (f"{path} row 2", f"{path} row 3")
    with rejects(DataError, "table.several_labels", file=str(listed / "a" / "0.jpg"), rows=rows, values=("x", "y")):
        load(path)


def test_csv_in_utf16(listed):
    splits = load(write(listed, "a/0.jpg,\u732b", encoding="utf-16"))
    assert splits.train.class_names == ("\u732b",) and splits.table.encoding == "utf-16"


def test_links_are_followed_once_for_prediction_too(tmp_path):
    (fill(tmp_path, 2) / "a" / "again").symlink_to(tmp_path)
    assert len(images_of(tmp_path)) == 2
