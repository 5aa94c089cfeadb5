"""Read the tree of a folder once: the names of folders, images and other files.

A file is only opened if its extension is not that of an image, because a photo may lack an extension.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from recipes.data.folders.contents import IMAGE, kind_of
from recipes.errors import DataError

LOOP, TWICE, CLOSED = "symbolic link loop", "folder linked twice", "unreadable folder"
SYSTEM, DEEP = "system folder", "folder too deep"
MAX_DEPTH = 100

Identity = tuple[int, int]  # device and inode of a folder

# Folders that an operating system, a network store or a tool creates. Names that begin with a dot are hidden.
SYSTEM_FOLDERS = frozenset({
    "__macosx", "$recycle.bin", "system volume information", "found.000", "lost+found", "lost.dir",
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "__pycache__", "node_modules",
    "bower_components", "site-packages", "temporary items", "network trash folder",
})  # fmt: skip
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})


@dataclass(frozen=True)
class Folder:
    """One folder of a tree. All names are sorted; hidden entries and system files are omitted.

    Attributes:
        name: Name of the folder.
        folders: Folders in this folder.
        images: Names of its files that are images by their extensions or their first bytes.
        others: Names of its other files.
        hidden: Names of its hidden folders.
        unsupported: {name: format} of its pictures that cannot be decoded.
        problem: Reason why the folder was not read: LOOP, CLOSED, SYSTEM or DEEP; "" for a folder that was read.
        identity: Device and inode, equal for two links to one folder; None if unknown.
    """

    name: str
    folders: tuple["Folder", ...] = ()
    images: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    unsupported: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    identity: Identity | None = field(default=None, compare=False, repr=False)

    @cached_property
    def total(self) -> int:
        """Number of images in and below the folder."""
        return len(self.images) + sum(folder.total for folder in self.folders)

    @cached_property
    def undecodable(self) -> int:
        """Number of pictures of unsupported formats in and below the folder."""
        return len(self.unsupported) + sum(folder.undecodable for folder in self.folders)

    @cached_property
    def filled(self) -> tuple["Folder", ...]:
        """The inner folders that hold images at any depth."""
        return tuple(folder for folder in self.folders if folder.total)


def scan(path: Path) -> Folder:
    """Return the tree of a folder. Links are followed unless they lead back to a folder that contains them.

    Raises:
        DataError: If `path` itself cannot be read.
    """
    found = _scan(os.fspath(path), path.name, chain=(), known={})
    if found.problem:
        try:
            os.listdir(path)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}; correct the permissions of this folder",
                code="folder.unreadable", path=path,
            ) from error  # fmt: skip
    return found


def _scan(path: str, name: str, chain: tuple[Identity, ...], known: dict[Identity, Folder]) -> Folder:
    """Return the tree of a folder; `known` holds the folders that were read before, so that each is only read once."""
    try:
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in chain:
            return Folder(name, problem=LOOP)
        if len(chain) >= MAX_DEPTH:
            return Folder(name, problem=DEEP)
        if identity not in known:
            with os.scandir(path) as scanned:
                entries = sorted((entry.name, _is_folder(entry)) for entry in scanned)
            known[identity] = _folder(path, name, entries, (*chain, identity), known)
    except OSError:
        return Folder(name, problem=CLOSED)
    return replace(known[identity], name=name)


def _folder(
    path: str, name: str, entries: list[tuple[str, bool]], chain: tuple[Identity, ...], known: dict[Identity, Folder]
) -> Folder:
    folders, images, others, hidden, unsupported = [], [], [], [], {}
    for entry, is_folder in entries:
        if entry.startswith("."):
            hidden += [entry] if is_folder else []
        elif is_folder and entry.lower() in SYSTEM_FOLDERS:
            folders.append(Folder(entry, problem=SYSTEM))
        elif is_folder:
            folders.append(_scan(os.path.join(path, entry), entry, chain, known))
        elif entry.lower() not in SYSTEM_FILES:
            kind = kind_of(os.path.join(path, entry))
            if kind == IMAGE:
                images.append(entry)
            elif kind:
                unsupported[entry] = kind
            else:
                others.append(entry)
    files = tuple(images), tuple(others), tuple(hidden)
    return Folder(name, tuple(folders), *files, unsupported, identity=chain[-1])


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def walk(folder: Folder, path: str, skipped: Collection[str] = ()) -> Iterator[tuple[str, Folder]]:
    """Yield (path, folder) for `folder` and all folders below it, parents first, in the order of their names.

    A folder that another link leads to is yielded again without its contents and with the problem TWICE. The paths
    `skipped` are omitted.
    """
    seen, waiting = set(), [(path, folder)]
    while waiting:
        where, current = waiting.pop()
        if where in skipped:
            continue
        if current.identity is not None and current.identity in seen:
            yield where, Folder(current.name, problem=TWICE)
            continue
        seen.add(current.identity)
        yield where, current
        waiting += [(os.path.join(where, inner.name), inner) for inner in reversed(current.folders)]
