"""Malformed and unusual images, one at a time among sound ones: what is found, and what becomes of it."""

import numpy as np
import pytest
import tensorflow as tf
from assertions import rejects
from odd_images import EXCLUDED, KEPT, NO_IMAGES, encoded, photo, rotated

import augment
from recipes import DataError, audit
from recipes.auditing.audit import usable
from recipes.auditing.facts import inspect, inspect_images, pixel_facts
from recipes.auditing.headers import read_header
from recipes.auditing.near_duplicates import near_pairs
from recipes.data.sources import load

SOUND = [encoded(photo(10 + i), "JPEG") for i in range(8)]


@pytest.fixture
def folder(tmp_path):
    for i, content in enumerate(SOUND):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"{i}.jpg").write_bytes(content)
    return tmp_path


def findings(folder):
    return {finding.kind: finding for finding in audit(folder).findings}


@pytest.mark.parametrize("name", EXCLUDED)
def test_excluded(folder, name):
    content, kind, action = EXCLUDED[name]
    (folder / "a" / name).write_bytes(content)
    found = findings(folder)
    assert found[kind].files == (str(folder / "a" / name),)
    assert found[kind].excluded and action in found[kind].action
    usable_splits, after = usable(load(folder), audit(folder))
    assert len(usable_splits.train) == len(SOUND) == len(after.fingerprints["train"])
    assert kind in str(after)


@pytest.mark.parametrize("name", NO_IMAGES)
def test_no_image_is_an_error(folder, name):
    (folder / "a" / name).write_bytes(NO_IMAGES[name])
    splits = load(folder)
    with rejects(DataError, "audit.not_an_image", files=(str(folder / "a" / name),)):
        usable(splits, audit(splits))


@pytest.mark.parametrize("name", KEPT)
def test_kept(folder, name):
    content, kind = KEPT[name]
    (folder / "a" / name).write_bytes(content)
    found = audit(folder)
    assert [finding.kind for finding in found.findings] == ([kind] if kind else [])
    assert all(f.files == (str(folder / "a" / name),) and f.action.startswith("kept") for f in found.findings)
    assert found.excluded == frozenset()


@pytest.mark.parametrize("name", [name for name, (content, kind) in KEPT.items() if kind != "animated"])
def test_the_audit_sees_the_pixels_that_training_sees(name):
    """The audit decodes by a shorter way than `augment.decode`; the header's size and orientation are the decoder's."""
    content = KEPT[name][0]
    pixels = augment.decode(tf.constant(content)).numpy()
    header = read_header(content)
    assert inspect(content).fingerprint == pixel_facts(pixels, header).fingerprint
    turned = header.orientation >= 5
    assert pixels.shape[:2] == ((header.width, header.height) if turned else (header.height, header.width))


@pytest.mark.parametrize("name", [n for n, (_, kind, _) in EXCLUDED.items() if kind == "too large"])
def test_bombs_are_not_decoded(name, monkeypatch):
    monkeypatch.setattr("recipes.auditing.facts._decode", lambda content, header: pytest.fail("decoded"))
    assert "pixels" in inspect(EXCLUDED[name][0]).error


def test_large_jpegs_are_decoded_at_a_half(monkeypatch):
    small = photo(size=(300, 400))
    content = encoded(small.resize((4000, 3000)), "JPEG")
    sizes = []
    monkeypatch.setattr("recipes.auditing.facts.pixel_facts", lambda pixels, header: sizes.append(pixels.shape))
    inspect(content)
    assert sizes == [(1500, 2000, 3)]


def test_images_in_memory_have_the_fingerprints_of_their_files():
    pixels = np.stack([np.asarray(photo(i)) for i in range(3)])
    files = [encoded(photo(i), "PNG") for i in range(3)]
    labels = ["a", "b", "b"]
    prints = [[fact.fingerprint for fact in inspect_images(load((images, labels)).train)] for images in (pixels, files)]
    assert prints[0] == prints[1]


SAME = {
    "smaller": lambda image: image.resize((120, 90)),
    "larger": lambda image: image.resize((500, 400)),
    "brighter": lambda image: image.point(lambda x: min(255, int(1.15 * x + 8))),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "shifted": lambda image: image.crop((2, 2, image.width - 1, image.height - 1)),
}


def scene(seed: int):
    """Blobs of many sizes, as photographs have."""
    random = np.random.default_rng(seed)
    layers = [np.kron(random.normal(0, n**-0.7, (n, n, 3)), np.ones((240 // n, 240 // n, 1))) for n in (2, 4, 8, 30)]
    blended = sum(layers)
    return encodable(128 + 60 * blended / blended.std())


def encodable(values):
    from PIL import Image

    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("change", SAME)
def test_near_duplicates_are_found_among_others(change):
    images = [scene(i) for i in range(60)] + [SAME[change](scene(i)) for i in range(5)]
    signatures = [inspect(encoded(image, "JPEG", quality=80)).signature for image in images]
    assert near_pairs(signatures, np.zeros(65)).tolist() == [[i, 60 + i] for i in range(5)]


def test_drawings_that_are_alike_are_no_near_duplicates():
    """Handwritten digits of one class at 96 pixels differ in few strokes: that they correlate is no sign of copies."""
    from sklearn.datasets import load_digits

    from recipes.data.digits import enlarge

    bunch = load_digits()
    ink = np.repeat(enlarge(bunch.images.astype(np.float32) * 15.9, 96)[..., None], 3, -1).clip(0, 255).astype(np.uint8)
    facts = inspect_images(load((ink, bunch.target)).train)
    assert len(near_pairs([fact.signature for fact in facts], bunch.target)) < 20


def test_orientations_are_turned_before_the_fingerprint():
    facts = [inspect(rotated("PNG", orientation)) for orientation in (1, 6)]
    assert facts[0].fingerprint != facts[1].fingerprint
    assert inspect(encoded(photo().transpose(4), "PNG")).fingerprint == facts[1].fingerprint  # by 270°
