"""How a folder of images is arranged: which folders are classes, which are splits, and what is neither."""

import os
from dataclasses import dataclass

from recipes.errors import DataError

CLASSES = "class folders"
SPLITS = "split folders with class folders in them"
CLASSES_ABOVE_SPLITS = "class folders with split folders in them"
JOINED = "folders named after a class and a split"
SPLIT_NAMES = ("train", "validation", "test")
OWN_OUTPUT, UNRELATED, UNSORTED = "output of a program", "folder without images", "unlabelled images"
ANNOTATIONS, COPY, NESTED, MASKS = "masks or annotations", "second copy", "nested folders", "masks among the images"
DERIVED = "copies made of other images"


class LayoutError(DataError):
    """A folder cannot be used as it is arranged.

    path: the folder.  problem: a short name of what is wrong, such as "ambiguous split" or "no class folders".
    """

    def __init__(self, path: str, problem: str, message: str):
        super().__init__(message)
        self.path, self.problem = path, problem


@dataclass(frozen=True)
class Skipped:
    """A folder that is not read.

    kind:   OWN_OUTPUT, UNRELATED, UNSORTED, ANNOTATIONS, COPY, DERIVED, or `tree.SYSTEM`.
    detail: more about it, such as "a saved run", or "".
    """

    path: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Part:
    """One split: its folder, and for each class the folders that hold its images. All paths start at the dataset."""

    split: str
    folder: str
    classes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """What a folder was taken for. All paths are relative to it; "" is the folder itself.

    kind:    CLASSES, SPLITS, CLASSES_ABOVE_SPLITS or JOINED.
    folder:  where the class or split folders lie.
    parts:   the splits; one, "train", for CLASSES.
    skipped: folders that are not read.
    nested:  class folders with several folders of images in them, all of which are read as that class.
    mask_files: images that seem to be masks of others in the same folder, by their names; they are read.
    """

    kind: str
    folder: str
    parts: tuple[Part, ...]
    skipped: tuple[Skipped, ...] = ()
    nested: tuple[str, ...] = ()
    mask_files: tuple[str, ...] = ()

    @property
    def usual(self) -> bool:
        """Whether class folders, or split folders above them, lie in the folder itself."""
        return self.kind in (CLASSES, SPLITS) and not self.folder

    def __str__(self) -> str:
        names = list(self.parts[0].classes)
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        below = f", below {self.folder}/" if self.folder else ""
        splits = f"; splits: {', '.join(map(self._named, self.parts))}" if self.kind != CLASSES else ""
        return f"layout: {self.kind}{below}; {len(names)} {'class' if len(names) == 1 else 'classes'}: {shown}{splits}"

    def _named(self, part: Part) -> str:
        """The split, and the name of its folder where that is another one."""
        name = os.path.basename(part.folder)
        return part.split if self.kind != SPLITS or name == part.split else f"{part.split} ({name}/)"
