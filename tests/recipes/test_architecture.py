"""Imports within the project point one way: see docs/architecture.md."""

import ast
from pathlib import Path

import pytest

import recipes

ROOT = Path(__file__).resolve().parents[2]
ORDER = (
    "errors", "core", "data", "auditing", "networks", "planning", "evaluation", "probing", "training", "runs",
    "distributed", "diagnostics", "export", "serving", "reports", "result", "studies", "tuning", "finetuning",
    "pretraining", "", "cli", "__main__",
)  # fmt: skip
FILES_IN_A_FOLDER, LINES_IN_A_FILE, LINES_IN_A_FUNCTION, PARAMETERS = 14, 300, 60, 7
MANY_PARAMETERS = {  # function → why it has more
    **dict.fromkeys(("recipes.cli.run.evaluate", "recipes.cli.run.export", "recipes.cli.run.serve",
                     "recipes.cli.train.finetune", "recipes.cli.train.ablate", "recipes.cli.train.search"),
                    "parameters are options of the command"),
    **dict.fromkeys(("recipes.finetuning.finetune", "recipes.tuning.search.search", "recipes.result.Result.export",
                     "recipes.data.tables.reader.from_csv"), "a public signature"),
}  # fmt: skip
SIBLINGS = {"recipes.augment", "recipes.layers", "recipes.optimizers"}  # other packages, see core/siblings.py
OPTIONAL = {  # modules that import optional or slow packages, each where it is needed
    "recipes.training.engines.jax": "jax",
    "recipes.training.engines.jax_parallel": "jax",
    "recipes.training.engines.torch": "torch",
    "recipes.serving.connection": "uvicorn",
    "recipes.serving.routes": "starlette",
    "recipes.tuning.figure": "matplotlib",
    "recipes.tuning.report": "jinja2",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "recipes").rglob("*.py"))}


def package(module: str) -> str:
    """Return "data" for "recipes.data.images", and "" for `recipes` itself."""
    return module.removeprefix("recipes").removeprefix(".").split(".")[0]


def rank(module: str) -> int:
    return ORDER.index(package(module))


def imported(path: Path) -> set[tuple[str, bool]]:
    """Return (module of `recipes`, whether inside a function) for each import of a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "recipes":
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                if {longer, node.module}.isdisjoint(SIBLINGS):
                    found.add((longer if longer in MODULES else node.module, node.col_offset > 0))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "recipes"]
            found |= {(name, node.col_offset > 0) for name in names}
    return found


GRAPH = {module: {target for target, _ in imported(path)} for module, path in MODULES.items()}


def test_every_package_has_a_place_in_the_order():
    assert {package(module) for module in MODULES} == set(ORDER)


def test_no_module_imports_a_higher_package():
    arrows = [(module, target) for module, targets in GRAPH.items() for target in targets]
    assert [arrow for arrow in arrows if rank(arrow[1]) > rank(arrow[0])] == []


def test_no_cycles():
    remaining = {module: set(targets) for module, targets in GRAPH.items()}
    while free := [module for module, targets in remaining.items() if not targets & set(remaining)]:
        for module in free:
            del remaining[module]
    assert sorted(remaining) == []


def test_imports_inside_functions_are_of_optional_or_slow_packages():
    """Except in the command line, which answers --help without TensorFlow."""
    inside = [
        (module, target) for module, path in MODULES.items() for target, nested in imported(path)
        if nested and rank(module) < rank("recipes.cli") and target not in OPTIONAL
    ]  # fmt: skip
    assert inside == []


def test_the_other_packages_import_only_themselves_by_relative_imports():
    for package in ("layers", "optimizers", "augment"):
        for path in (ROOT / package).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                heads = {name.split(".")[0] for name in names}
                assert not heads & {"recipes", "layers", "optimizers", "augment"}, (path.name, names)


def test_no_module_hides_a_public_function():
    names = {path.stem for path in (ROOT / "recipes").iterdir() if path.suffix != ".pyi"} - {"__init__", "__main__"}
    assert names & set(recipes.__all__) == set()


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=lambda path: path.name)
def test_folders_and_files_are_small(folder):
    files = sorted(folder.glob("*.py"))
    assert len(files) <= FILES_IN_A_FOLDER
    lines = {module_name(path): len(path.read_text().splitlines()) for path in files}
    assert {name for name, count in lines.items() if count > LINES_IN_A_FILE} == set()


def test_only_the_command_line_and_the_renderer_print():
    printing = {
        module for module, path in MODULES.items() for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }  # fmt: skip
    assert {module for module in printing if package(module) != "cli"} == {"recipes.core.output"}


def functions(module: str, path: Path):
    """Yield (dotted name, node) of each function, methods and nested functions included."""

    def walk(node, name):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if not isinstance(child, ast.ClassDef):
                    yield f"{name}.{child.name}", child
                yield from walk(child, f"{name}.{child.name}")
            else:
                yield from walk(child, name)

    yield from walk(ast.parse(path.read_text()), module)


def test_functions_are_short_and_take_few_parameters():
    long, many = [], set()
    for module, path in MODULES.items():
        for name, node in functions(module, path):
            text = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.lineno + 1 - (len(text.splitlines()) if text else 0)
            long += [name] if lines > LINES_IN_A_FUNCTION else []
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len(names) - (names[:1] in (["self"], ["cls"])) > PARAMETERS:
                many.add(name)
    assert long == [] and many == set(MANY_PARAMETERS)


def test_every_function_is_typed():
    bare = [
        name for module, path in MODULES.items() for name, node in functions(module, path)
        if node.returns is None and node.name != "__init__"
    ]  # fmt: skip
    assert bare == []
