"""Describe how a folder of images is arranged: its class folders, its split folders, and all other folders."""

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
    LOOP: "not followed: this link leads back to a folder that contains it",
    TWICE: "read once: another link leads to the same folder",
    CLOSED: "not read: its images are missing from the training; correct the permissions of the folder",
    DEEP: "not read: the folder is nested more than 100 levels deep",
    SYSTEM: "not read: this folder was made by an operating system or a tool",
    OWN_OUTPUT: "not read: the output of a program does not contain images of a class",
    UNRELATED: "not read: the folder holds no images, so it is neither a class nor a split",
    UNSORTED: (
        "not read: the folder has no class folders; sort its images into class folders, or classify them with "
        "`recipes predict`"
    ),
    ANNOTATIONS: "not read: masks and boxes are not images of a class",
    COPY: "not read: the folder repeats other folders, with images of the same names",
    DERIVED: (
        "not read: their names mean copies made from other images of the class, which could put one picture on "
        "both sides of a split"
    ),
    NESTED: (
        "each of these folders was read as one class, with all folders in it; to make the inner folders classes, "
        "move them one level up"
    ),
    MASKS: "kept: their names suggest masks of other images in the same folder; if they are masks, move them elsewhere",
    NOT_SUPPORTED: "not read: convert these files to JPEG or PNG",
    UNREAD: "not read: these files have no supported image format, or lie outside the class folders",
}


class LayoutError(DataError):
    """The arrangement of a folder cannot be used.

    Attributes:
        path: The folder.
        problem: A short name of the problem, such as "ambiguous split" or "no class folders".
        code: The problem as a code for programs, such as "layout.ambiguous_split".
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
        path: Path relative to the dataset.
        kind: OWN_OUTPUT, UNRELATED, UNSORTED, ANNOTATIONS, COPY, DERIVED, or `tree.SYSTEM`.
        detail: Further description, such as "a saved run", or "".
    """

    path: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Part:
    """One split: its folder, and the folders with the images of each class. Paths are relative to the dataset."""

    split: str
    folder: str
    classes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Layout:
    """The arrangement of a folder. All paths are relative to the folder; "" is the folder itself.

    Attributes:
        kind: CLASSES, SPLITS, CLASSES_ABOVE_SPLITS or JOINED.
        folder: The folder that holds the class or split folders.
        parts: The splits; only "train" for CLASSES.
        skipped: Folders, and masks among the images, that are not read.
        nested: Class folders with several folders of images in them, all of which are read as that class.
        mask_files: Images whose names suggest masks of a few other images in the same folder. These files are read.
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
        """Return the name of the split, with the name of its folder if the two differ."""
        name = os.path.basename(part.folder)
        return part.split if self.kind != SPLITS or name == part.split else f"{part.split} ({name}/)"
