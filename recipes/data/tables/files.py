"""Locate the files that a table names, which must all lie inside one folder."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from recipes.data.tables.names import is_image_name, override
from recipes.errors import DataError

_MOST_FOLDERS = 200  # largest number of folders below the table's folder that are searched for images
_TRIED = 50  # number of names that are tried first in each folder


@dataclass(frozen=True)
class Located:
    """The files of a table's images in the order of its rows, their folder, and notes on how they were found."""

    files: list[str]
    folder: str
    notes: tuple[str, ...] = ()


@dataclass
class Place:
    """A folder that holds images, and the folder `within` which all images must lie."""

    folder: str
    within: str
    _listed: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def find(self, name: str, where: str) -> str:
        """Return the file that `name` means; "" if there is none.

        The method tries the name unchanged, then with slashes for backslashes, then in other Unicode forms. A name
        without an image extension also matches the file that adds one.

        Raises:
            DataError: If the name leads out of `within`, which is checked before any file is accessed, or matches
                several files.
        """
        slashes = name.replace("\\", "/")
        for spelled in dict.fromkeys((name, slashes, *(normalize(form, slashes) for form in ("NFC", "NFD")))):
            path = os.path.join(self.folder, spelled)
            self._check_inside(path, where)
            if os.path.isfile(path):
                return path
            if spelled and not is_image_name(spelled):
                same = [f for f in self._beside(path).get(os.path.basename(path), ()) if is_image_name(f)]
                if len(same) > 1:
                    raise DataError(
                        f"{where} names {name}, which may be {' or '.join(same)}; write the name with its extension",
                        code="table.ambiguous_file", row=where, file=name, candidates=tuple(same),
                    )  # fmt: skip
                if same:
                    found = os.path.join(os.path.dirname(path), same[0])
                    self._check_inside(found, where)
                    return found if os.path.isfile(found) else ""
        return ""

    def _check_inside(self, path: str, where: str) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self.within):
            raise DataError(
                f"{where} names {path}, which lies outside {self.within}; if this is intended, name the folder of all "
                "images: recipes.from_csv(csv, within=...), or --within on the command line",
                code="table.outside", row=where, path=path, within=self.within,
            )  # fmt: skip

    def _beside(self, path: str) -> dict[str, list[str]]:
        """Return the files in a path's folder by their names without extensions."""
        folder = os.path.dirname(path)
        if folder not in self._listed:
            stems: dict[str, list[str]] = defaultdict(list)
            with suppress(OSError):  # the files of a folder that cannot be listed are reported as missing
                for name in sorted(os.listdir(folder)):
                    stems[os.path.splitext(name)[0]].append(name)
            self._listed[folder] = stems
        return self._listed[folder]

    def hint(self, name: str) -> str:
        """Return a likely reason why a name was not found, or ""."""
        path = os.path.join(self.folder, name.replace("\\", "/"))
        base, stem = os.path.basename(path), os.path.splitext(os.path.basename(path))[0]
        if os.path.isdir(path):
            return f"{name} is a folder"
        stems = self._beside(path)
        similar = [
            *stems.get(stem, ()),
            *(n for names in stems.values() for n in names if n.casefold() == base.casefold()),
        ]
        if similar:
            return f"{similar[0]} exists, so the extension of the names may be wrong"
        if stem.isdecimal() and any(other.isdecimal() and int(other) == int(stem) for other in stems):
            return "files with the same numbers and leading zeros exist: a spreadsheet may have removed the zeros"
        if _is_absolute(name):
            return "the names are absolute paths of another machine: shorten them to the part below the table's folder"
        return ""

    def lacks(self, name: str) -> bool:
        """Return whether no file is called `name`, with or without an image extension."""
        path = os.path.join(self.folder, name.replace("\\", "/"))
        return not (os.path.isfile(path) or os.path.basename(path) in self._beside(path))


@dataclass(frozen=True)
class Named:
    """The images that the rows of a table name.

    Attributes:
        names: Texts of the cells.
        where: The name of each row in errors.
        table: The path of the table.
        hint: A likely reason if the first row's image does not exist.
    """

    names: Sequence[str]
    where: Sequence[str]
    table: Path
    hint: str = ""

    def find(self, place: Place) -> list[str]:
        """Return the file of each row in `place`; "" for files that do not exist."""
        return [place.find(name, row) for name, row in zip(self.names, self.where, strict=True)]

    def check(self) -> None:
        """Raise DataError for a name that cannot belong to a file."""
        for name, row in zip(self.names, self.where, strict=True):
            if not name:
                raise DataError(
                    f"{row} names no image; write a file name in this row, or remove the row",
                    code="table.no_file",
                    row=row,
                )
            if "\0" in name:
                raise DataError(
                    f"{row} names {name!r}, which has a NUL character and is no path; correct the name",
                    code="table.not_a_path", row=row, file=name,
                )  # fmt: skip
            if re.match(r"(https?|gs|s3|wasbs?|abfss?)://", name):
                raise DataError(
                    f"{row} names {name}, a network address; expected a file: download the images and write their "
                    "file names",
                    code="table.web_address", row=row, file=name,
                )  # fmt: skip


def locate(named: Named, folder: str | os.PathLike | None, within: str | os.PathLike | None) -> Located:
    """Return the files that the rows of a table name.

    Args:
        named: The rows.
        folder: Folder to which the names are relative. None takes the table's folder, or, if it has none of the files,
            the only folder below it that has all of them.
        within: The folder that no path may leave. None takes `folder`, or else the table's folder.

    Raises:
        DataError: If a name cannot belong to a file, leads out of `within`, or its file does not exist.
    """
    named.check()
    own = named.table.parent
    limit = os.path.realpath(Path(within or folder or own).expanduser())
    place = Place(str(Path(folder).expanduser() if folder else own), limit)
    try:
        files = named.find(place)
    except DataError as error:
        if error.code != "table.outside" or not all(_is_absolute(n) and place.lacks(n) for n in named.names):
            raise
        raise _missing(named, [""] * len(named.names), place, {}) from None
    if all(files):
        return Located(files, place.folder, _notes(named.names, files))
    below = {} if folder else _below(named, own, limit)
    complete = [(base, found) for base, found in below.items() if all(found)]
    if not any(files) and len(complete) == 1:
        base, found = complete[0]
        return Located(found, base, (f"names are relative to {base}", *_notes(named.names, found)))
    raise _missing(named, files, place, below)


def _missing(named: Named, files: Sequence[str], place: Place, below: Mapping[str, Sequence[str]]) -> DataError:
    """Return the error for files that do not exist in `place`; `below` holds the files found in folders below it."""
    missing = [i for i, file in enumerate(files) if not file]
    first = named.names[missing[0]]
    hints = [place.hint(first), named.hint if missing[0] == 0 else ""]
    counts = {base: count for base, found in below.items() if (count := sum(bool(found[i]) for i in missing))}
    if counts:
        base = max(counts, key=lambda base: counts[base])
        some = ", ".join([f"{count:,} in {base}" for base, count in counts.items()][:5])
        hints.append(f"of these exist {some}: give the folder, {override('folder', base)}")
    if not any(hints):
        start = f"names are relative to {place.folder}; for another folder give {override('folder', 'FOLDER')}"
        hints = [_hint_below(named, place, first) or start]
    table = str(named.table)
    examples = ", ".join(f"{named.where[i].removeprefix(table).strip()} names {named.names[i]}" for i in missing[:5])
    count = f"{len(missing):,} of {len(files):,} images {'does' if len(missing) == 1 else 'do'} not exist"
    return DataError(
        f"{table}: {count}: {examples}; {'; '.join(filter(None, hints))}",
        code="table.missing_files", table=table, files=tuple(named.names[i] for i in missing),
        rows=tuple(named.where[i] for i in missing), below=counts,
    )  # fmt: skip


def _hint_below(named: Named, place: Place, name: str) -> str:
    """Return a likely reason why a name was not found, according to the first folder below with similar files."""
    bases = _folders(named.table.parent) if place.folder == str(named.table.parent) else []
    for base in bases:
        if hint := Place(base, place.within).hint(name):
            return f"in {base}/: {hint}; give the folder, {override('folder', base)}"
    return ""


def _is_absolute(name: str) -> bool:
    """Return whether a name is an absolute path of any operating system."""
    return bool(re.match(r"[A-Za-z]:[\\/]|/|\\\\", name))


def _notes(names: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """Return notes on names whose extensions or separators were changed to find the files."""
    ends = [normalize("NFC", name.replace("\\", "/")) for name in names]
    completed = sum(not normalize("NFC", file).endswith(end) for file, end in zip(files, ends, strict=True))
    replaced = sum("\\" in name and "\\" not in file for name, file in zip(names, files, strict=True))
    notes = [f"{completed:,} names have no extension and take that of the file with this name"] if completed else []
    return (*notes, *([f"{replaced:,} names have backslashes, which are read as slashes"] if replaced else []))


def _below(named: Named, own: Path, within: str) -> dict[str, list[str]]:
    """Return the folders one or two levels below `own` that hold some of the images, with the files in each folder."""
    found, some = {}, range(0, len(named.names), 1 + len(named.names) // _TRIED)
    for base in _folders(own):
        place = Place(base, within)
        with suppress(DataError):  # from that folder, a name leads out of `within` or is ambiguous
            if any(place.find(named.names[i], named.where[i]) for i in some):
                found[base] = named.find(place)
    return found


def _folders(own: Path) -> list[str]:
    folders = []
    for root, names, _ in os.walk(own):
        names[:] = sorted(name for name in names if not name.startswith("."))
        folders += [os.path.join(root, name) for name in names]
        if os.path.dirname(root) == str(own) or len(folders) > _MOST_FOLDERS:
            names.clear()
    return sorted(folders[:_MOST_FOLDERS])
