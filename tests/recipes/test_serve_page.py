"""The page of the server in headless Chromium, by keyboard, file chooser and drop; skipped where there is none."""

import shutil

import pytest

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 844, "light"), (1280, 800, "dark")])
def test_a_photo_is_classified(browser, server, exported, tmp_path, width, height, scheme):
    address = server[0]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.screenshot(path=tmp_path / "before.png")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"  # reached by keyboard, first of all
    photo = tmp_path / f"{'long' * 30}.jpg"  # as telephones call their photos
    page.set_input_files("#file", shutil.copy(next((exported.photos / "red").glob("*.jpg")), photo))
    page.get_by_role("listitem").first.wait_for()
    assert page.locator("#answer").inner_text() == "red"
    bars = page.get_by_role("img", name="%")
    assert bars.count() == 3
    assert bars.first.get_attribute("aria-label").startswith("red: ")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("document.getElementById('photo').naturalWidth") == 48
    page.screenshot(path=tmp_path / "after.png")
    assert problems == []
    assert all(url.startswith((address, "blob:")) for url in requests)
    page.close()


def test_class_names_are_texts_and_never_markup(browser, exported):
    """Whoever named the classes, or the model, writes nothing into the page but words; and no icon is missed."""
    from recipes.serving.model import LoadedModel
    from recipes.serving.routes import PAGE_POLICY
    from recipes.serving.routes import page as page_of

    names = [
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        "Žluťoučký \u2028 kůň 🐎 `${alert(3)}`",
    ]
    model = LoadedModel({}, {"class_names": [*names, *"abcdefghi"]}, "m", "1")
    content = page_of(model, "a\"'<b>&amp;")
    row = {"probabilities": [0.2, 0.3, 0.4, *[0.01] * 7, 0.02, 0.01], "class_name": names[2]}
    page, problems, requests = browser.new_page(), [], []
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))

    def answer(route):
        requests.append(route.request.url)
        if route.request.method == "POST":
            route.fulfill(json={"predictions": [row]})
        else:
            route.fulfill(body=content, content_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})

    page.route("**/*", answer)
    page.goto("http://model.test/")
    page.set_input_files("#file", next((exported.photos / "red").glob("*.jpg")))
    page.get_by_role("listitem").first.wait_for()
    assert page.locator("#title").inner_text() == "a\"'<b>&amp;"
    assert page.locator("#answer").text_content() == names[2]
    shown = page.locator("li span").all_text_contents()
    assert shown[:6:2] == [names[2], names[1], names[0]] and shown[-2:] == ["2 other classes", "2.0 %"]
    assert problems == []
    assert requests == ["http://model.test/", "http://model.test/v1/models/a%22%27%3Cb%3E%26amp%3B:predict"]
    page.close()


def test_a_dropped_file_that_is_no_image_says_why(browser, server):
    page = browser.new_page()
    page.goto(server[0])
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["hello"], "letter.jpg", {type: "image/jpeg"}));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }"""
    )
    page.locator("#answer.error").wait_for()
    assert "not an image" in page.locator("#answer").inner_text()
    assert page.get_by_role("listitem").count() == 0
    page.close()
