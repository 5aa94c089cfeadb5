"""What README and docs show: every block runs, page by page, or says why not; every name, keyword and link exists."""

import ast
import functools
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from pages import PAGES, ROOT, Block, blocks, names

import augment
import layers
import optimizers
import recipes
import recipes.cli

PACKAGES = {"augment": augment, "layers": layers, "optimizers": optimizers, "recipes": recipes}
KNOWN = {"result": recipes.Result, "found": recipes.Search}  # what the pages call them
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
COMMANDS = typer.main.get_command(recipes.cli.app)


def python(page: Path) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "python"]


def run(block: Block, namespace: dict) -> None:
    if block.language == "python":
        exec(compile(block.text, "block", "exec"), namespace)
        return
    for command in block.commands:
        if command[0] == "recipes":
            recipes.cli.app(command[1:], standalone_mode=False)


def executed(page: Path, slow: bool) -> list[Block]:
    left_out = {"not run"} if slow else {"not run", "slow"}
    return [block for block in blocks(page) if block.language and not left_out & set(block.marks)]


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_the_page_runs(page, request, tmp_path, monkeypatch):
    """That of README does in test_photos.py."""
    monkeypatch.chdir(tmp_path)
    run_page(page, request, slow=False)


@pytest.mark.minutes
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any("slow" in block.marks for block in blocks(p))], ids=lambda page: page.name
)
def test_the_page_runs_whole(page, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page, request, slow=True)


def run_page(page: Path, request, slow: bool) -> None:
    """In the order of its blocks, in the working directory, with one namespace."""
    shown = executed(page, slow)
    if not shown:
        pytest.skip("shows no code")
    real = any("needs weights" in block.marks for block in shown)
    if real and not (ROOT.parent / "shared").is_dir():
        pytest.skip("needs ImageNet weights: ../shared")
    made = request.getfixturevalue("shown_photos" if real else "shown_folder")
    shutil.copytree(made, ".", symlinks=True, dirs_exist_ok=True)
    namespace = names(page)
    for block in shown:
        run(block, namespace)


@EACH
def test_the_commands_are_understood(page, tmp_path, monkeypatch):
    """Those that are not run, too, where everything that they name exists; scripts exist."""
    monkeypatch.chdir(tmp_path)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path).startswith("/shared/") or exists(path))
    shown = [block for block in blocks(page) if block.language == "sh"]
    for command in [command for block in shown for command in block.commands]:
        if command[0] == "recipes":
            name, *arguments = command[1:]
            for word in arguments:
                if re.fullmatch(r"\w[\w./-]*", word):
                    Path(word).mkdir(parents=True, exist_ok=True)
            COMMANDS.commands[name].make_context(name, arguments)
        for word in command:
            assert not word.startswith("scripts/") or (ROOT / word).exists(), word


@EACH
def test_the_names_exist(page):
    code = " ".join([*python(page), *re.findall(r"`([^`\n]+)`", page.read_text("utf-8"))])
    code = re.sub(r"\b\w+\.py\b", "", code)  # names of files
    for package, path in re.findall(rf"(?<![\w./-])({'|'.join(PACKAGES)})\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)", code):
        found = PACKAGES[package]
        for name in path.split("."):
            assert hasattr(found, name), f"{package}.{path} in {page.name}"
            found = getattr(found, name)


@EACH
def test_the_arguments_are_taken(page):
    """Calls in blocks that are not run, and in the text: the function has such keywords, and so many arguments."""
    text = page.read_text("utf-8")
    code = [*python(page), *(span for span in re.findall(r"`([^`\n]+\))`", text) if "…" not in span)]
    for call in [node for each in code for node in _calls(each)]:
        function = _function(call.func)
        if function is not None:
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            try:
                inspect.signature(function).bind_partial(*[None] * len(call.args), **keywords)
            except TypeError as error:
                raise AssertionError(f"{ast.unparse(call)}: {error}") from None


def _calls(code: str) -> list[ast.Call]:
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []  # in the text: a command line, or a call with something left out
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _function(node):
    """What `package.name…` or `result.name` stands for; None for anything else."""
    if isinstance(node, ast.Name):
        return PACKAGES.get(node.id) or KNOWN.get(node.id)
    owner = _function(node.value) if isinstance(node, ast.Attribute) else None
    if owner is None:
        return None
    found = getattr(owner, node.attr, None)
    return functools.partial(found, None) if inspect.isclass(owner) and inspect.isfunction(found) else found


def test_the_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_the_api_pages_name_everything_public():
    for name, package in PACKAGES.items():
        shown = re.findall(r"^::: [\w.]+\.(\w+)$", (ROOT / "docs" / "api" / f"{name}.md").read_text("utf-8"), re.M)
        assert sorted(shown) == sorted({*package.__all__} - {*PACKAGES, "__version__"}), name


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [page.read_text("utf-8") for page in (tmp_path / "site").rglob("*.html")]
    assert len(pages) >= len(PAGES)
    optimizers_page = (tmp_path / "site" / "api" / "optimizers" / "index.html").read_text("utf-8")
    assert "<li><code>learning_rate</code>: α" in optimizers_page  # docstrings are lists, see scripts/docstrings.py
    loads = re.compile(r'<(?:script|img|iframe)[^>]+src="https?:[^"]+|<link[^>]+href="https?:[^"]+')
    assert not [found for page in pages for found in loads.findall(page)]
