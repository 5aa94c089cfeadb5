"""`import recipes` is light, and files of the user with common names hide none of its packages."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recipes

ROOT = Path(__file__).resolve().parents[2]


def python(code, *paths):
    environment = {**os.environ, "PYTHONPATH": ":".join(map(str, paths))}
    line = [sys.executable, "-c", code]
    return subprocess.run(line, cwd=paths[0], env=environment, capture_output=True, text=True)


def test_heavy_libraries_wait_until_they_are_needed():
    heavy = ["sklearn", "matplotlib", "keras_cv", "tensorflow_datasets", "jinja2", "typer"]
    done = python(
        f"import sys, tensorflow, keras; before = set(sys.modules); import recipes;"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])", ROOT,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, recipes, recipes.cli; print({'tensorflow', 'keras', 'numpy'} & set(sys.modules), dir(recipes))"
    assert python(code, ROOT).stdout.startswith("set() ['Ablation', ")


def test_the_public_names_exist():
    assert set(recipes.__all__) >= {"finetune", "layers", "optimizers", "augment", "__version__"}
    assert all(hasattr(recipes, name) for name in recipes.__all__) and dir(recipes) == sorted(recipes.__all__)
    with pytest.raises(AttributeError, match="finetun"):
        _ = recipes.finetun


@pytest.mark.parametrize("name", ["layers", "optimizers", "augment"])
def test_the_sibling_packages_are_one_import_away(name):
    assert getattr(recipes, name) is importlib.import_module(name) is importlib.import_module(f"recipes.{name}")
    module = {"layers": "noise", "optimizers": "first_order", "augment": "header"}[name]
    assert importlib.import_module(f"recipes.{name}.{module}") is importlib.import_module(f"{name}.{module}")


SHADOWED = """
import sys
import {first}, {second}
import layers, optimizers, augment
assert [m.MINE for m in (layers, optimizers, augment)] == [1, 1, 1]
assert recipes.layers.DropConnect.__module__ == "recipes.layers.drop_connect"
import keras
model = keras.Sequential([keras.Input((8,)), recipes.layers.DropConnect(keras.layers.Dense(4), 0.5)])
model.compile(recipes.optimizers.Adam(), "mse")
model.save("saved.keras")
assert type(keras.saving.load_model("saved.keras").layers[0]) is recipes.layers.DropConnect
print(type(recipes.finetune).__name__, recipes.augment.Policy.light(32).size)
"""


@pytest.mark.parametrize(("first", "second"), [("recipes", "layers"), ("layers", "recipes")])
def test_files_of_the_user_with_the_same_names_hide_nothing(tmp_path, first, second):
    (tmp_path / "layers.py").write_text("MINE = 1")
    (tmp_path / "augment.py").write_text("MINE = 1")
    (tmp_path / "optimizers").mkdir()
    (tmp_path / "optimizers" / "__init__.py").write_text("MINE = 1")
    done = python(SHADOWED.format(first=first, second=second), tmp_path, ROOT)
    assert done.stdout.strip() == "function 32", done.stderr


def test_no_module_needs_what_windows_lacks():
    absent = re.compile(r"^\s*(?:import|from) (?:fcntl|grp|posix|pwd|resource|termios)\b", re.MULTILINE)
    sources = [path for name in ("recipes", "augment", "layers", "optimizers") for path in (ROOT / name).rglob("*.py")]
    assert sources and not [path for path in sources if absent.search(path.read_text(encoding="utf-8"))]
