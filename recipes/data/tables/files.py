"""The files that a table names: looked for in one folder, which no name may leave."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from recipes.data.tables.names import is_image_name
from recipes.errors import DataError

_MOST_FOLDERS = 200  # below the table's own in which images are looked for
_TRIED = 50  # names by which it is seen whether a folder has any


@dataclass(frozen=True)
class Located:
    """The files of a table's images in the order of its rows, the folder that they lie in, and what was done to find
    them."""

    files: list[str]
    folder: str
    notes: tuple[str, ...] = ()


@dataclass
class Place:
    """A folder to look for images in, and the one that they may not leave."""

    folder: str
    within: str
    _listed: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def find(self, name: str, where: str) -> str | None:
        """Return the file that `name` means, or None.

        The name is taken as it stands, else with slashes for backslashes, else in another Unicode form; a name without
        an image's ending also means the one file that has it but for the ending.

        Raises:
            DataError: for a name that leads out of `within`, before any file is looked at, or means several files.
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
                    raise DataError(f"{where} names {name}, which may be {' or '.join(same)}; write the name in full")
                if same:
                    found = os.path.join(os.path.dirname(path), same[0])
                    self._check_inside(found, where)
                    return found if os.path.isfile(found) else None
        return None

    def _check_inside(self, path: str, where: str) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self.within):
            raise DataError(
                f"{where} names {path}, which lies outside {self.within}; if that is meant, name the folder that holds "
                "all images: recipes.from_csv(csv, within=...), or --within on the command line"
            )

    def _beside(self, path: str) -> dict[str, list[str]]:
        """The files of a path's folder by their names without ending."""
        folder = os.path.dirname(path)
        if folder not in self._listed:
            stems = defaultdict(list)
            try:
                for name in sorted(os.listdir(folder)):
                    stems[os.path.splitext(name)[0]].append(name)
            except OSError:
                pass  # no such folder: its files are reported as missing
            self._listed[folder] = stems
        return self._listed[folder]

    def hint(self, name: str) -> str:
        """What may be wrong with a name that was not found; empty: nothing is known."""
        path = os.path.join(self.folder, name.replace("\\", "/"))
        base, stem = os.path.basename(path), os.path.splitext(os.path.basename(path))[0]
        if os.path.isdir(path):
            return f"{name} is a folder"
        stems = self._beside(path)
        near = [
            *stems.get(stem, ()),
            *(n for names in stems.values() for n in names if n.casefold() == base.casefold()),
        ]
        if near:
            return f"{near[0]} exists: is the extension of the names wrong?"
        if stem.isdecimal() and any(other.isdecimal() and int(other) == int(stem) for other in stems):
            return "files of the same numbers with leading zeros exist: a spreadsheet may have removed these"
        if re.match(r"[A-Za-z]:[\\/]", name) or name.startswith(("/", "\\\\")):
            return "these are paths of another machine: shorten them"
        return ""


def locate(
    names: Sequence[str], where: Sequence[str], table: str, own: Path, folder: Path | None, within: Path | None,
    hint: str = "",
) -> Located:  # fmt: skip
    """Return the files that the rows of a table name.

    Args:
        names: what the cells hold.  where: what to call each row in an error.  table: what to call the table.
        own: the folder that the table lies in.
        folder: where the names start; None: in `own`, or, if none is found there, in the one folder below `own` that
            has them all.
        within: the folder that no path may leave; None: `folder`, or `own`.
        hint: what may be wrong where the first row's image does not exist.

    Raises:
        DataError: for a name that is none or leads out of `within`, and for all names whose files do not exist.
    """
    for name, row in zip(names, where, strict=True):
        if not name:
            raise DataError(f"{row} names no image")
        if "\0" in name:
            raise DataError(f"{row} names {name!r}, which is no path: it has a NUL character")
        if re.match(r"(https?|gs|s3|wasbs?|abfss?)://", name):
            raise DataError(f"{row} names {name}, a place in the network; download the images and name the files")
    limit = os.path.realpath(Path(within or folder or own).expanduser())
    place = Place(str(Path(folder).expanduser() if folder else own), limit)
    files = [place.find(name, row) for name, row in zip(names, where, strict=True)]
    missing = [i for i, file in enumerate(files) if file is None]
    if not missing:
        return Located(files, place.folder, _notes(names, files))
    below = {} if folder else _below(names, where, own, limit)
    whole = [(base, found) for base, found in below.items() if None not in found]
    if len(missing) == len(files) and len(whole) == 1:
        base, files = whole[0]
        return Located(files, base, (f"the names start in {base}", *_notes(names, files)))
    hints = [hint if missing[0] == 0 else "", place.hint(names[missing[0]])]
    counts = {base: sum(found[i] is not None for i in missing) for base, found in below.items()}
    if some := [f"{count:,} in {base}" for base, count in counts.items() if count]:
        base = max(counts, key=counts.get)
        hints.append(
            f"of them exist {', '.join(some[:5])}: give the folder, recipes.from_csv(..., folder={base!r}), or "
            f"--column folder={base} on the command line"
        )
    examples = ", ".join(f"{where[i].removeprefix(table).strip()} names {names[i]}" for i in missing[:5])
    count = f"{len(missing):,} of {len(files):,} images {'does' if len(missing) == 1 else 'do'} not exist"
    raise DataError(
        f"{table}: {count}: {examples}; " + "; ".join(filter(None, hints) if any(hints) else [_relative(place.folder)])
    )


def _relative(folder: str) -> str:
    return (
        f"names start in {folder}; for another folder give recipes.from_csv(..., folder=...), or --column folder=... "
        "on the command line"
    )


def _notes(names: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    ends = [normalize("NFC", name.replace("\\", "/")) for name in names]
    completed = sum(not normalize("NFC", file).endswith(end) for file, end in zip(files, ends, strict=True))
    turned = sum("\\" in name and "\\" not in file for name, file in zip(names, files, strict=True))
    said = f"{completed:,} names have no extension, that of the file with this name was taken" if completed else ""
    return tuple(filter(None, (said, f"{turned:,} names have backslashes, read as slashes" if turned else "")))


def _below(names: Sequence[str], where: Sequence[str], own: Path, within: str) -> dict[str, list[str | None]]:
    """The folders one or two levels below `own` that have some of the images, with what is found in each."""
    found, some = {}, range(0, len(names), 1 + len(names) // _TRIED)
    for base in _folders(own):
        place = Place(base, within)
        try:
            if not any(place.find(names[i], where[i]) for i in some):
                continue
            files = [place.find(name, row) for name, row in zip(names, where, strict=True)]
        except DataError:
            continue  # a name leads out of the folder from there, or is ambiguous there
        found[base] = files
    return found


def _folders(own: Path) -> list[str]:
    folders = []
    for root, names, _ in os.walk(own):
        names[:] = sorted(name for name in names if not name.startswith("."))
        folders += [os.path.join(root, name) for name in names]
        if os.path.dirname(root) == str(own) or len(folders) > _MOST_FOLDERS:
            names.clear()
    return sorted(folders[:_MOST_FOLDERS])
