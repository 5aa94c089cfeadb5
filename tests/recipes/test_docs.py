"""What README and docs show: the code compiles, and the names in it exist."""

import ast
import re
from pathlib import Path

import pytest

import augment
import layers
import optimizers
import recipes

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"augment": augment, "layers": layers, "optimizers": optimizers, "recipes": recipes}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_compiles(page):
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_names_exist(page):
    code = " ".join(
        map("".join, re.findall(r"^```python\n(.*?)^```|`([^`\n]+)`", page.read_text("utf-8"), re.S | re.M))
    )
    for package, path in re.findall(rf"(?<![\w./-])({'|'.join(PACKAGES)})\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)", code):
        found = PACKAGES[package]
        for name in path.split("."):
            assert hasattr(found, name), f"{package}.{path} in {page.name}"
            found = getattr(found, name)
