"""The page about a run: what is in it, that nothing can break out of it, that it stays small, and how it behaves."""

import base64
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import tensorflow as tf
from makers import folder, jpeg, small_network
from odd_images import encoded
from PIL import Image

import augment
import recipes
from recipes import Finding, OutputError
from recipes.auditing.audit import Audit
from recipes.data.images import ImageData
from recipes.evaluation.metrics import score
from recipes.evaluation.predictions import Judged
from recipes.networks.backbones import resolve
from recipes.networks.classifier import copied, logits_model, with_probabilities
from recipes.planning.constructor_text import constructor_text
from recipes.probing.label_errors import Suspect
from recipes.reports.command_line import commands
from recipes.reports.photos import photo, photo_named, readable
from recipes.reports.report import render
from recipes.result import Result
from recipes.tuning.figure import NotDrawable, surface
from recipes.tuning.report import render as search_page
from recipes.tuning.search import Search, Trial

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTIONS = ["plan", "curves", "probe", "ledger", "classes", "reliability", "mistakes", "suspects", "looked", "audit",
            "varied", "again"]  # fmt: skip


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, its text, and the text of each section."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text, self.sections, self.open = [], "", {}, []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append((tag, dict(attributes)))
        if tag == "section":
            self.sections[dict(attributes)["id"]] = ""

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if any(tag in ("style", "script") for tag, _ in self.open):
            return
        self.text += data
        for tag, attributes in self.open:
            if tag == "section":
                self.sections[attributes["id"]] += data

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of which some are in a wrong folder, and one is damaged."""
    root = folder(tmp_path_factory.mktemp("photos") / "photos", per_class=24)
    for name, other in (("red", "blue"), ("blue", "green"), ("green", "red")):
        for file in sorted((root / name).glob("*.jpg"))[:3]:
            file.rename(root / other / f"from_{name}_{file.name}")
    (root / "red" / "broken.jpg").write_bytes(jpeg(np.zeros((40, 48, 3), np.uint8))[:300])
    return root


@pytest.fixture(scope="module")
def result(photos) -> Result:
    """Of a probe and a training by gradient steps, with mistakes."""
    result = recipes.finetune(
        photos, backbone=small_network(), recipe=recipes.adjusted("all", epochs=2, size=32, patience=2)
    )
    result.suspects = (*result.suspects, Suspect(result.held_out.names[0], "red", "blue", 0.93))
    return result


@pytest.fixture(scope="module")
def page(result) -> str:
    return render(result)


def predictions(n: int, classes: int, seed: int = 0) -> Judged:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    logits = random.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += 3
    odds = np.exp(logits)
    return Judged(labels, (odds / odds.sum(1, keepdims=True)).astype(np.float32))


def test_every_section_is_there_and_linked_at_the_top(result, page):
    page = Page(page)
    assert list(page.sections) == SECTIONS
    assert [a["href"] for a in page.all("a")] == [f"#{name}" for name in SECTIONS]
    evaluation = result.validation
    for words in (f"{100 * evaluation.accuracy:.1f}", "95 % interval", "recipes.finetune(", "tensorflow",
                  "label_smoothing", "this dataset", "broken.jpg", f"{evaluation.n} validation images"):  # fmt: skip
        assert words in page.text, words
    assert len([a for a in page.all("img") if a["src"].startswith("data:image/jpeg;base64,")]) > 10


def test_pictures_have_a_text_alternative(page):
    page = Page(page)
    assert page.all("img") and all(picture["alt"] for picture in page.all("img"))
    assert page.all("svg") and all(figure["role"] == "img" and figure["aria-label"] for figure in page.all("svg"))


def test_the_page_loads_nothing(page):
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page) == [] and "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page


def test_mistakes_are_those_of_before_the_validation_images_were_trained_on(result, page):
    judged = result.judged
    assert result.recipe.refit and len(judged.mistakes())
    assert score(judged.probabilities, judged.labels).confusion == result.validation.confusion
    np.testing.assert_array_equal(judged.labels, result.held_out.labels)
    now = result.probabilities(result.held_out)
    assert np.abs(now - judged.probabilities).max() > 1e-3  # the classifier has seen them meanwhile
    assert "predicted before any of them joined the training images" in page


def test_the_worst_mistakes_come_first():
    judged = Judged(np.array([0, 1, 1, 0]), np.array([[0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], np.float32))
    assert judged.mistakes().tolist() == [1, 3, 0]


def test_reliability_adds_up_to_the_calibration_error():
    judged = predictions(400, 5)
    bins = judged.reliability()
    error = sum(n * abs(accuracy - confidence) for confidence, accuracy, n in bins) / 400
    assert sum(n for *_, n in bins) == 400
    assert error == pytest.approx(score(judged.probabilities, judged.labels).ece, abs=1e-6)


@pytest.mark.slow
def test_a_saved_run_gives_the_same_page_until_its_photos_have_moved(result, page, photos, tmp_path):
    result.save(tmp_path / "run")
    again = recipes.load(tmp_path / "run")
    np.testing.assert_array_equal(again.judged.probabilities, result.judged.probabilities)
    assert Page(render(again)).text.split() == Page(page).text.split()
    moved = photos.rename(tmp_path / "elsewhere")
    try:
        page = Page(render(again))
    finally:
        moved.rename(photos)
    assert page.all("img") == [] and "not available" in page.text
    assert list(page.sections) == [name for name in SECTIONS if name not in ("looked", "varied")]


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": np.zeros(2, int), "probabilities": np.zeros((2, 5), np.float32)},
        {"labels": np.array([0, 7]), "probabilities": np.zeros((2, 3), np.float32)},
        {"labels": np.zeros(2, int), "probabilities": np.full((2, 3), np.nan, np.float32)},
        {"labels": np.zeros(2, int)},
        {"labels": np.array([None, None]), "probabilities": np.zeros((2, 3), np.float32)},
    ],
)
def test_strange_predictions_are_rejected(result, tmp_path, arrays):
    result.save(tmp_path)
    np.savez(tmp_path / "judged.npz", **arrays)
    with pytest.raises(OutputError):
        recipes.load(tmp_path)


def test_names_with_markup_stay_text(result):
    names = ["<script>alert(1)</script>", "</table></style>\"'><b>", "{{ 7 * 7 }} & co"]
    evil = Finding("odd", ('"><img src=x onerror=alert(2)>.jpg',), "kept </pre><script>alert(3)</script>")
    doubtful = Suspect('a"><svg onload=alert(4)>.jpg', names[0], names[1], 0.9)
    files = tuple(f"{i}'\"><img src=y onerror=alert(5)>.jpg" for i in range(len(result.held_out)))
    page = Page(render(replace(
        result, class_names=names, audit=Audit((evil,), {}), suspects=(doubtful,), command={"dataset": names[0]},
        judged=predictions(len(files), 3), held_out=replace(result.held_out, names=files),
        backbone=names[1], recipe=result.recipe.because("test", "<i>so</i>"), versions={names[1]: names[0]},
    )))  # fmt: skip
    named = predictions(len(files), 3).mistakes()[:24]
    for name in [*names, *evil.files, evil.action, doubtful.file, "<i>so</i>", *(files[i] for i in named)]:
        assert name in page.text, name
    assert len(page.all("script")) == 1 and not page.all("b") and not page.all("i")
    assert all(a["src"].startswith("data:") for a in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def huge(result: Result) -> Result:
    """1,000 classes of long names, 10,000 files, most of them odd, suspect or wrong, of which each is noise."""
    classes = [f"class {i} " + "<&>" * 60 for i in range(1000)]
    noise = jpeg(np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8))
    judged = replace(predictions(2000, 1000), probabilities=np.random.default_rng(1).dirichlet(np.ones(1000), 2000))
    files = tuple(f"photos/{'&' * 150}/{i:05}.jpg" for i in range(10_000))
    logits = logits_model(resolve(small_network()), 1000, 32)
    return replace(
        result, class_names=classes, model=with_probabilities(logits), judged=judged,
        held_out=ImageData([noise] * 2000, judged.labels, tuple(classes), files[:2000]),
        validation=score(judged.probabilities, judged.labels),
        suspects=tuple(Suspect(file, classes[0], classes[1], 0.9) for file in files),
        audit=Audit(tuple(Finding(f"kind {i}", files, "kept " * 100) for i in range(40)), {"train": files}),
        ledger=result.ledger * 10, history={name: values * 2000 for name, values in result.history.items()},
        command={"dataset": "x" * 10**6, "seed": 0},
    )  # fmt: skip


@pytest.mark.slow
def test_the_page_of_a_huge_dataset_is_small_and_says_what_it_leaves_out(result):
    page = render(huge(result))
    assert len(page.encode()) < 5_000_000
    text = " ".join(Page(page).text.split())
    for words in ("The 20 classes with the most mistakes; 980 are left out", "The 24 worst of", "100 of 10000",
                  "and 9970 more", "And 10 more kinds", "and 990 more"):  # fmt: skip
        assert words in text, words


@pytest.mark.slow
def test_results_without_predictions_history_or_probe_have_no_empty_section(result):
    bare = replace(
        result, history={}, probe=None, table=None, ledger=(), suspects=(), validation=None, judged=None, held_out=None,
        audit=Audit((), {}), command={}, calibration=None, selection=None,
    )  # fmt: skip
    page = Page(render(bare))
    assert list(page.sections) == ["plan", "audit", "again"] and "Not yet evaluated" in page.text
    old = Page(render(replace(result, judged=None)))
    assert "earlier version" in old.text and "mistakes" not in old.sections
    twin = replace(result, model=copied(result.model))
    both = recipes.ensemble([result, twin], result.held_out)
    assert {"mistakes", "reliability", "looked"} <= set(Page(render(both)).sections)


def test_the_command_of_a_run_is_as_it_was_typed():
    typed = dict(dataset="my photos", backbone="auto", recipe="auto", validation=None, time_limit="5m", seed=3)
    assert commands(typed) == ["recipes finetune 'my photos' --time-limit 5m --seed 3"]
    shorter = typed | {"recipe": constructor_text(recipes.adjusted("few", epochs=2))}
    assert commands(shorter) == ["recipes finetune 'my photos' --recipe few --time-limit 5m --seed 3 --epochs 2"]
    smaller = typed | {"recipe": constructor_text(recipes.adjusted("few", size=64)), "time_limit": None}
    assert commands(smaller) == ["recipes finetune 'my photos' --recipe few --seed 3 --set size=64"]
    whole = commands(typed | {"recipe": constructor_text(recipes.finetune_few(size=32)), "time_limit": None})[0]
    given = eval(whole[whole.index("recipe=") + 7 : whole.rindex(", seed")], {"recipes": recipes, "augment": augment})
    assert given == recipes.finetune_few(size=32)
    memory = dict(dataset="tuple 0123456789ab", recipe="auto", seed=0)
    assert commands(memory) == ["recipes.finetune(<tuple 0123456789ab>, seed=0)"]
    pretrain = dict(dataset="my photos", backbone="Functional 0123456789ab", recipe=None, seed=0)
    for changes, command in (
        ({"size": 32, "epochs": 3}, "recipes pretrain 'my photos' --seed 0 --size 32 --epochs 3"),
        ({"size": 32, "dropout": 0.5}, "recipes.pretrain('my photos', recipe=recipes.adjusted('scratch', size=32, "
         "dropout=0.5), seed=0)"),
    ):  # fmt: skip
        pretrain["recipe"] = constructor_text(recipes.adjusted("scratch", **changes))
        assert commands(pretrain, "convnet") == [command]
    assert commands({"soup": [typed, typed]})[1:] == [*commands(typed), "recipes.soup([…])  # the 2 runs above"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "page.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(browser, written, tmp_path, width, height, scheme):
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    problems, requested = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(written.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    heights = page.evaluate("[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height)")
    assert heights and min(heights) >= 11  # readable
    assert page.evaluate(CONTRAST) >= 4.5
    page.screenshot(path=tmp_path / f"{width}_{scheme}.png", full_page=True)
    assert problems == [] and all(url == written.as_uri() or url.startswith("data:") for url in requested)
    page.close()


CONTRAST = """() => {
    const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = colour => [0.2126, 0.7152, 0.0722].map((w, i) => w * channel(+colour.match(/[0-9.]+/g)[i])).reduce((a, b) => a + b);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const inks = [...document.querySelectorAll("p, a, caption, figcaption, dt, dd, td, th, .wrong, .absent")].map(e => light(getComputedStyle(e).color));
    return Math.min(...inks.map(ink => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)));
}"""  # noqa: E501


def test_tables_are_sorted_by_mouse_and_by_keyboard(browser, written):
    page = browser.new_page()
    page.goto(written.as_uri())
    table = page.locator("#probe table")

    def column():
        cells = table.locator("tbody td:nth-child(3)").evaluate_all("cells => cells.map(cell => +cell.dataset.value)")
        return cells

    head = table.locator("thead th", has_text="accuracy")
    assert head.get_attribute("aria-sort") is None
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and column() == sorted(column())
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and column() == sorted(column(), reverse=True)
    other = table.locator("thead th", has_text="stage")
    other.get_by_role("button").press("Space")
    assert other.get_attribute("aria-sort") == "ascending" and head.get_attribute("aria-sort") is None
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names)
    gains = page.locator("#ledger table")
    gains.locator("thead th", has_text="gain").get_by_role("button").click()
    shown = gains.locator("tbody td:nth-child(3)").all_inner_texts()
    assert shown == sorted(shown, key=lambda text: (text == "", float(text or 0)))  # what has no value comes last
    page.close()


def trials(count: int):
    """A search as `recipes.search` returns one, whose trials were not run."""
    import optuna

    random = np.random.default_rng(0)
    study = optuna.create_study()
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
             "dropout": optuna.distributions.FloatDistribution(0.0, 0.5)}  # fmt: skip
    done = []
    for i in range(count):
        values = {"learning_rate": float(10 ** random.uniform(-4, -1)), "dropout": float(random.uniform(0, 0.5))}
        loss = 0.2 + (np.log10(values["learning_rate"]) + 3) ** 2
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=loss))
        state = "pruned" if i % 5 == 4 else "complete"
        done.append(Trial(i, values, float(np.exp(-loss)), None if state == "pruned" else float(loss), state))
    judged = predictions(100, 3)
    recipe = recipes.finetune_all(32).because("test", "<b>a search</b>")
    return Search(recipe, score(judged.probabilities, judged.labels), 40, tuple(done), 10, study)


def test_the_page_of_a_search(browser, tmp_path):
    found = trials(20)
    found.report(tmp_path / "search.html")
    text = (tmp_path / "search.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert list(parsed.sections) == ["winner", "importance", "layout", "contour", "trials"]
    assert f"{100 * found.accuracy.accuracy:.1f}" in parsed.text and "<b>a search</b>" in parsed.text
    assert "pruned" in parsed.text and len(re.findall("stroke-width: 1.5", text)) == 20  # one disc per trial
    assert f"lowest {found.best.loss:.3f} nats at learning_rate" in parsed.text and "label_smoothing" in parsed.text
    assert "currentColor" in text and "#010203" not in text and re.findall(r'(?:src|href)="(?!data:|#)', text) == []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    problems = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto((tmp_path / "search.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") and problems == []
    page.locator("#trials thead th", has_text="learning_rate").get_by_role("button").click()
    cells = page.locator("#trials tbody td:nth-child(4)").evaluate_all("cells => cells.map(c => +c.dataset.value)")
    assert len(cells) == 20 and cells == sorted(cells)
    page.screenshot(path=tmp_path / "search.png", full_page=True)
    page.close()
    assert "Red rings: the first 10," in parsed.text
    lone = Page(search_page(replace(trials(1), coarse=0)))
    assert list(lone.sections) == ["winner", "layout", "contour", "trials"] and "A search of 1 trial" in lone.text
    assert "A search of 1 trials" not in lone.text and "rings" not in lone.text
    assert lone.text.count("it needs 4 complete trials, and this search has 1") == 2
    assert len(search_page(trials(3000)).encode()) < 1_000_000


def losses(points) -> Search:
    """A search whose trials have these (x, y, loss)."""
    done = tuple(Trial(i, {"x": x, "y": y}, 0.5, loss, "complete") for i, (x, y, loss) in enumerate(points))
    return replace(trials(5), trials=done, coarse=0)


def test_a_contour_needs_an_area_and_different_losses():
    ends = (0.0, 1.0)
    square = surface(losses([(x, y, 2 + 3 * x) for x in ends for y in ends]), ["x", "y"])
    assert square.pair == ("x", "y") and square.triangles.shape == (2, 3)
    assert [trial.loss for trial in square.trials] == [2, 2, 5, 5]
    for points, names, reason in (
        ([(x, x, x) for x in range(5)], ["x", "y"], "on one line"),
        ([(x, y, 1.0) for x in ends for y in ends], ["x", "y"], "the same loss"),
        ([(0.0, 0.0, 1.0)], ["x", "y"], "needs 4 complete trials, and this search has 1"),
        ([(x, y, x) for x in ends for y in ends], ["x"], "two numeric fields"),
    ):
        with pytest.raises(NotDrawable, match=reason):
            surface(losses(points), names)
        assert "The contour is not shown" in search_page(losses(points)) or names == ["x"]


def test_photos_are_upright_small_and_of_any_kind(tmp_path):
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, :200] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # its left is to be shown on top
    (tmp_path / "turned.jpg").write_bytes(
        encoded(Image.fromarray(wide), "JPEG", exif=exif)
    )  # its left is to be shown on top
    (tmp_path / "text.jpg").write_text("no image")
    names = tuple(str(tmp_path / name) for name in ("turned.jpg", "text.jpg", "gone.jpg"))
    data = ImageData(names, np.zeros(3, np.int64), ("a",), names)
    shown = [photo(data, i) for i in range(3)]
    assert shown[1:] == [None, None] and readable(data, range(3)) == [0]
    pixels = tf.io.decode_jpeg(base64.b64decode(shown[0].split(",")[1])).numpy()
    assert pixels.shape == (160, 40, 3) and pixels[:60].min() > 240 and pixels[100:].max() < 15
    grey = ImageData(wide[None, :, :, :1], np.zeros(1, np.int64), ("a",), ("images[0]",))
    assert photo(grey, 0) and photo_named("images[0]", grey) and photo_named("images[1]", grey) is None
