"""Describe how a folder of images is arranged: which folders are classes, which are splits, and which are neither."""

import os
from dataclasses import dataclass

from recipes.core.output import shortened
from recipes.core.text import counted, described
from recipes.data.folders.tree import CLOSED, DEEP, LOOP, SYSTEM, TWICE
from recipes.data.header_ops import NOT_SUPPORTED
from recipes.errors import DataError

CLASSES = "class folders"
SPLITS = "split folders with class folders in them"
CLASSES_ABOVE_SPLITS = "class folders with split folders in them"
JOINED = "folders named after a class and a split"
SPLIT_NAMES = ("train", "validation", "test")
OWN_OUTPUT, UNRELATED, UNSORTED = "output of a program", "folder without images", "unlabelled images"
ANNOTATIONS, COPY, NESTED, MASKS = "masks or annotations", "second copy", "nested folders", "masks among the images"
DERIVED = "copies made of other images"
UNREAD = "not read"
ACTIONS = {
    LOOP: "not followed: it leads back to a folder that it lies in",
    TWICE: "read once: another link leads to the same folder",
    CLOSED: "not read: what lies in it is missing from the training; mend its permissions",
    DEEP: "not read: it lies more than 100 folders deep",
    SYSTEM: "not read: an operating system or a tool made it",
    OWN_OUTPUT: "not read: files that a program wrote are not images of a class",
    UNRELATED: "not read: not a class or split, for there are no images in it",
    UNSORTED: "not read: there are no class folders in it; sort the images into class folders if their classes are "
    "known, else classify them with `recipes predict`",
    ANNOTATIONS: "not read: masks and boxes are not images of a class",
    COPY: "not read: the same folders again, with images of the same names",
    DERIVED: "not read: by their names they were made of other images of the class, of which a copy could lie on both "
    "sides of a split",
    NESTED: "each was read as one class with all folders in it; to make them classes, move them one level up",
    MASKS: "kept: by their names they are masks of other images in the same folder; move them elsewhere if they are",
    NOT_SUPPORTED: "not read: convert them to JPEG or PNG",
    UNREAD: "no image format that is read, or outside the class folders",
}


class LayoutError(DataError):
    """A folder cannot be used as it is arranged.

    Attributes:
        path: The folder.
        problem: A short name of what is wrong, such as "ambiguous split" or "no class folders".
        code: The same as one word, such as "layout.ambiguous_split".
    """

    path: str
    problem: str

    def __init__(self, path: str, problem: str, message: str):
        code = f"layout.{problem.lower().replace(' ', '_')}"
        super().__init__(message, code=code, path=path, problem=problem)


@dataclass(frozen=True)
class Skipped:
    """A folder, or a mask among images, that is not read.

    Attributes:
        path: Below the dataset.
        kind: OWN_OUTPUT, UNRELATED, UNSORTED, ANNOTATIONS, COPY, DERIVED, or `tree.SYSTEM`.
        detail: More about it, such as "a saved run", or "".
    """

    path: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Part:
    """One split: its folder, and for each class the folders that hold its images. Paths are relative to the dataset."""

    split: str
    folder: str
    classes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """How a folder is arranged. All paths are relative to it; "" is the folder itself.

    Attributes:
        kind: CLASSES, SPLITS, CLASSES_ABOVE_SPLITS or JOINED.
        folder: The folder that holds the class or split folders.
        parts: The splits; only "train" for CLASSES.
        skipped: Folders, and masks among the images, that are not read.
        nested: Class folders with several folders of images in them, all of which are read as that class.
        mask_files: Images that seem to be masks of a few others in the same folder, by their names; they are read.
    """

    kind: str
    folder: str
    parts: tuple[Part, ...]
    skipped: tuple[Skipped, ...] = ()
    nested: tuple[str, ...] = ()
    mask_files: tuple[str, ...] = ()

    @property
    def usual(self) -> bool:
        """Whether class folders, or split folders that hold them, lie directly in the folder."""
        return self.kind in (CLASSES, SPLITS) and not self.folder

    def __str__(self) -> str:
        names = list(self.parts[0].classes)
        below = f", below {self.folder}/" if self.folder else ""
        splits = f"; splits: {', '.join(map(self._named, self.parts))}" if self.kind != CLASSES else ""
        classes = f"{len(names)} {'class' if len(names) == 1 else 'classes'}: {shortened(names)}"
        return f"layout: {self.kind}{below}; {classes}{splits}"

    def __repr__(self) -> str:
        classes = counted(len(self.parts[0].classes), "class", "classes")
        return described("Layout", repr(self.kind), classes, counted(len(self.parts), "split"))

    def _named(self, part: Part) -> str:
        """Return the split, with the name of its folder if that differs."""
        name = os.path.basename(part.folder)
        return part.split if self.kind != SPLITS or name == part.split else f"{part.split} ({name}/)"
