"""Read a folder of images as `Splits` according to its layout, and report all files that are not read."""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from recipes.data.finding import Finding, Unsupported
from recipes.data.folders.contents import IMAGE_SUFFIXES
from recipes.data.folders.layout import ACTIONS, MASKS, NESTED, UNREAD, LayoutError, Part, Skipped
from recipes.data.folders.leftovers import left_out
from recipes.data.folders.names import is_archive, own_output
from recipes.data.folders.rules import recognise
from recipes.data.folders.tree import TWICE, Folder, scan, walk
from recipes.data.header_ops import NOT_SUPPORTED
from recipes.data.images import ImageData, Splits, labelled
from recipes.errors import DataError

logger = logging.getLogger(__name__)

Unread = dict[str, list[str]]  # maps each kind of finding to paths
_UNSUPPORTED = NOT_SUPPORTED + ": {}; convert it to JPEG or PNG"


def read_folder(path: Path, class_names: Sequence[str] | None = None) -> Splits:
    """Return the images of a folder.

    Args:
        path: The folder.
        class_names: The classes, if they are known.

    Raises:
        LayoutError: If the arrangement of the folder cannot be used.
        DataError: If the folder cannot be read, or its splits have different classes.
    """
    base = "" if path == Path() else os.fspath(path)
    tree = scan(path)
    layout = recognise(tree, os.fspath(path), class_names)
    skipped = {os.path.join(base, skip.path) for skip in layout.skipped}
    parts: dict[str, ImageData] = {}
    unread: Unread = defaultdict(list)
    unsupported: list[Unsupported] = []
    for part in layout.parts:
        expected = class_names or (parts["train"].class_names if parts else tuple(sorted(part.classes)))
        places = _places(part, expected)
        _check_classes(part, places, expected, path, fixed=class_names is not None)
        found = [*_class_folders(tree, base, places, skipped)]
        images = [(os.path.join(where, file), name) for name, where, folder in found for file in folder.images]
        label_of = {file: name for file, name in images if file not in skipped}
        files = list(label_of)
        parts[part.split] = labelled(files, np.array([*label_of.values()], str), files, expected)
        unread[TWICE] += [where for _, where, folder in found if folder.problem == TWICE]
        unsupported += [
            Unsupported(os.path.join(where, file), part.split, name, _UNSUPPORTED.format(form))
            for name, where, folder in found
            for file, form in folder.unsupported.items()
        ]
    unread[MASKS] = [os.path.join(base, file) for file in layout.mask_files]
    unread[NESTED] = [os.path.join(base, place) for place in layout.nested]
    known = {name for data in parts.values() for name in data.names} | {file.name for file in unsupported}
    _add_unread(tree, base, skipped, known, unread)
    return Splits(
        parts["train"], parts.get("validation"), parts.get("test"),
        unread=_findings(layout.skipped, base, unread), layout=layout, unsupported=tuple(unsupported),
    )  # fmt: skip


def images_of(path: Path) -> list[str]:
    """Return the image file `path`, or all image files in the folder `path`, and log the skipped folders.

    Raises:
        DataError: If `path` is a folder without images, or an archive.
    """
    if not path.is_dir():
        if path.is_file() and is_archive(path.name):
            raise not_a_folder(path)
        return [os.fspath(path)]
    base, tree, found = os.fspath(path), scan(path), []
    leftovers, unread = left_out(tree, base), defaultdict(list)
    skipped = {os.path.join(base, skip.path) for skip in leftovers}
    for where, folder in walk(tree, base, skipped):
        found += [os.path.join(where, name) for name in folder.images]
        unread[folder.problem].append(where)
        unread[NOT_SUPPORTED] += [os.path.join(where, name) for name in folder.unsupported]
        unread[UNREAD] += [os.path.join(where, name) for name in folder.others]
    for finding in _findings(leftovers, base, unread):
        known = finding.kind != UNREAD
        logger.info(finding if known else replace(finding, action="these files have no supported image format"))
    if not found:
        output = own_output(tree)
        seen = f"is {output} and holds no images" if output else "holds no images"
        raise DataError(
            f"{path} {seen}; expected images, which are recognised by {' '.join(sorted(IMAGE_SUFFIXES))}, or by "
            "their first bytes",
            code="folder.no_images", path=path,
        )  # fmt: skip
    return found


def not_a_folder(path: Path) -> LayoutError:
    """Return the error for a file in place of a folder of class folders."""
    wanted = "expected a folder of class folders, or a .csv file of path,label"
    if is_archive(path.name):
        return LayoutError(
            os.fspath(path), "archive", f"{path} is an archive; {wanted}: unpack the archive and give the folder"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return LayoutError(
            os.fspath(path),
            "one image",
            f"{path} is a single image; {wanted}: give the folder that contains the class folder of this image",
        )
    return LayoutError(
        os.fspath(path),
        "no folder",
        f"{path} is neither a folder nor a .csv file; expected a folder of class folders, or a .csv file of path,label",
    )


def _findings(skips: Iterable[Skipped], base: str, unread: Unread) -> tuple[Finding, ...]:
    """Return one finding for each kind of skipped or unread file or folder."""
    details: dict[str, dict[str, None]] = defaultdict(dict)  # removes repetitions and keeps the order
    for skip in skips:
        unread[skip.kind].append(os.path.join(base, skip.path))
        if skip.detail:
            details[skip.kind][skip.detail] = None
    more = {kind: f" ({'; '.join(each)})" for kind, each in details.items()}
    return tuple(Finding(k, tuple(unread[k]), text + more.get(k, "")) for k, text in ACTIONS.items() if unread[k])


def _places(part: Part, expected: Sequence[str]) -> dict[str, list[str]]:
    """Return {class: its folders}. Names whose accents are only encoded differently (macOS: NFD) are one class."""
    forms = {unicodedata.normalize("NFC", name): name for name in expected}
    found = defaultdict(list)
    for name, places in part.classes.items():
        found[name if name in expected else forms.get(unicodedata.normalize("NFC", name), name)] += places
    return found


def _check_classes(part: Part, places: dict[str, list[str]], expected: Sequence[str], path: Path, fixed: bool) -> None:
    """Raise DataError if the classes differ from the expected classes.

    If `fixed`, the expected classes are those of a network, and a folder may lack some of them. Otherwise they are
    those of the training images.
    """
    extra, missing = sorted(set(places) - set(expected)), sorted(set(expected) - set(places))
    if not extra and (fixed or not missing):
        return
    where = path / part.folder
    known = {name.casefold() for name in expected}
    case = [name for name in extra if name.casefold() in known]
    hint = f"; {case[:5]} only differ from classes in upper and lower case" if case else ""
    if fixed:
        raise DataError(
            f"{where} has class folders {extra[:5]} that are not among the classes {list(expected)}{hint}; rename "
            "them, or leave them out",
            code="folder.unknown_classes", path=where, classes=tuple(extra),
        )  # fmt: skip
    raise DataError(
        f"the class folders of train and {part.split} in {path} differ: {part.split} lacks {missing}, and also has "
        f"{extra}{hint}; rename or move folders so that both splits have the same class folders (an empty folder "
        "is enough)",
        code="folder.different_classes", path=where, missing=tuple(missing), extra=tuple(extra),
    )  # fmt: skip


def _class_folders(
    tree: Folder, base: str, places: Mapping[str, list[str]], skipped: Collection[str]
) -> Iterator[tuple[str, str, Folder]]:
    """Yield (class, path, folder) for every folder of every class."""
    for name, some in sorted(places.items()):
        for place in some:
            for where, folder in walk(_at(tree, place), os.path.join(base, place), skipped):
                yield name, where, folder


def _at(tree: Folder, place: str) -> Folder:
    for name in place.split("/"):
        tree = next(inner for inner in tree.folders if inner.name == name)
    return tree


def _add_unread(tree: Folder, base: str, skipped: Collection[str], known: Collection[str], unread: Unread) -> None:
    """Add unreadable folders, and all files that are not `known` to be images of a class."""
    for where, folder in walk(tree, base, skipped):
        if folder.problem and folder.problem != TWICE:
            unread[folder.problem].append(where)
        names = sorted((*folder.images, *folder.others, *folder.unsupported))
        files = (os.path.join(where, name) for name in names)
        unread[UNREAD] += [file for file in files if file not in known and file not in skipped]
