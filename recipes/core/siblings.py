"""Import the packages `layers`, `optimizers` and `augment` as `recipes.layers` and so on.

Their own names are common: a `layers.py` in the working directory hides the package `layers`. The name inside `recipes`
always refers to this project's package. If `layers` is not hidden, both names refer to the same module object, so that
Keras registers each class once.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

SIBLINGS = ("augment", "layers", "optimizers")
_ROOT = Path(__file__).resolve().parents[2]


def _is_visible(name: str) -> bool:
    """Return whether `import name` imports this project's package."""
    if module := sys.modules.get(name):
        file = getattr(module, "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        file = spec.origin if spec else None
    return file is not None and Path(file).resolve() == _ROOT / name / "__init__.py"


class _Alias(Loader):
    """Loads the module `name` under a second name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        self._module = importlib.import_module(self._name)
        self._spec = self._module.__spec__
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has replaced the spec by that of the second name


class SiblingFinder(MetaPathFinder):
    """Finds `recipes.layers`, `recipes.optimizers`, `recipes.augment` and their modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of the three packages or of a module in it; None for other names."""
        parent, _, name = fullname.partition(".")
        package = name.split(".")[0]
        if parent != "recipes" or package not in SIBLINGS:
            return None
        if _is_visible(package):
            return importlib.util.spec_from_loader(fullname, _Alias(name))
        if name != package:
            return None  # Python finds a submodule in the folder of its package
        folder = _ROOT / name
        return importlib.util.spec_from_file_location(
            fullname, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
