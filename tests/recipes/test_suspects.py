"""Labels that are probably wrong: found, printed, saved, and in the report, beside the files that were left out."""

import numpy as np
import pytest
from makers import folder, small_network
from typer.testing import CliRunner

import recipes
from recipes.cli import app
from recipes.probing.label_errors import Suspect, label_errors


def separable(n: int = 300, classes: int = 3, seed: int = 0):
    """Probabilities of a classifier that is right, mostly sure, and its labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += 4
    exponents = np.exp(logits)
    return exponents / exponents.sum(1, keepdims=True), labels


def test_changed_labels_come_first():
    probabilities, labels = separable()
    changed = np.random.default_rng(1).permutation(300)[:15]
    wrong = labels.copy()
    wrong[changed] = (labels[changed] + 1) % 3
    found = label_errors(probabilities, wrong)
    hits = [i in changed for i, _ in found]
    assert sum(hits) >= 13 and all(hits[:10])
    assert all(suggested == labels[i] for i, suggested in found[:10])


def test_sound_labels_are_hardly_suspected():
    probabilities, labels = separable()
    assert len(label_errors(probabilities, labels)) <= 6


def test_an_unsure_classifier_suspects_nobody():
    labels = np.arange(300) % 3
    assert label_errors(np.full((300, 3), 1 / 3), labels) == []


def test_a_class_without_images_is_never_suggested():
    probabilities = np.tile([0.1, 0.1, 0.8], (20, 1))
    assert {suggested for _, suggested in label_errors(probabilities, np.arange(20) % 2)} <= {0, 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of discs of three colours: one lies in the wrong folder, one file is cut off."""
    root = tmp_path_factory.mktemp("suspects")
    photos = folder(root / "photos", per_class=20)
    (photos / "red" / "040.jpg").rename(photos / "blue" / "lost.jpg")
    (photos / "red" / "<cut>.jpg").write_bytes((photos / "red" / "041.jpg").read_bytes()[:500])
    small_network(root / "small.keras")
    recipe = recipes.adjusted("probe", size=48)
    return recipes.finetune(photos, backbone=root / "small.keras", recipe=recipe, output=root / "run"), root


def test_the_misplaced_image_is_reported(run):
    result, root = run
    first = result.suspects[0]
    assert first.file == str(root / "photos" / "blue" / "lost.jpg")
    assert (first.label, first.suggested) == ("blue", "red") and first.probability > 0.9
    assert "lost.jpg: labelled blue, looks like red" in str(result)


def test_suspects_and_excluded_files_are_saved_and_in_the_report(run):
    result, root = run
    again = recipes.load(root / "run")
    assert again.suspects == result.suspects and isinstance(again.suspects[0], Suspect)
    assert again.audit == result.audit
    assert again.audit.excluded == {str(root / "photos" / "red" / "<cut>.jpg")}
    again.report(root / "page.html")
    page = (root / "page.html").read_text(encoding="utf-8")
    assert "Labels to check" in page and "lost.jpg" in page
    assert "&lt;cut&gt;.jpg" in page and "<cut>" not in page
    assert "1 of these files was left out" in page


def test_audit_on_the_command_line(run):
    photos = str(run[1] / "photos")
    done = CliRunner().invoke(app, ["audit", photos])
    assert done.exit_code == 0 and "truncated jpeg (1)" in done.stdout
    strict = CliRunner().invoke(app, ["audit", photos, "--strict"])
    assert isinstance(strict.exception, recipes.DataError) and "truncated jpeg" in str(strict.exception)


def test_csv_on_the_command_line(run):
    photos = run[1] / "photos"
    (run[1] / "lists").mkdir()
    table = run[1] / "lists" / "list.csv"
    table.write_text("path,label\n" + "\n".join(f"../photos/blue/{i:03}.jpg,{'ab'[i % 2]}" for i in range(8)))
    refused = CliRunner().invoke(app, ["audit", str(table)])
    assert isinstance(refused.exception, recipes.DataError) and "--within" in str(refused.exception)
    done = CliRunner().invoke(app, ["audit", str(table), "--within", str(photos.parent)])
    assert done.stdout.startswith("8 images: nothing odd\n")
    assert done.stderr == f"{table}: 8 rows; image: 'path'; label: 'label'\n"
