"""Skip folders that are not part of a dataset: output of programs, masks, and copies of other folders."""

import os
from dataclasses import dataclass, field, replace

from recipes.data.folders.checks import Checks, images_and_annotations, inmost, join, listed, names_in
from recipes.data.folders.layout import ANNOTATIONS, COPY, DERIVED, OWN_OUTPUT, UNRELATED, Skipped
from recipes.data.folders.names import ANNOTATION_FOLDERS, IMAGE_FOLDERS, copied_name, is_derived, own_output, unrelated
from recipes.data.folders.tree import LOOP, SYSTEM, Folder, walk


@dataclass
class Leftovers(Checks):
    """Checks that collect the folders to skip."""

    skipped: dict[str, Skipped] = field(default_factory=dict)

    def skip(self, where: str, kind: str, detail: str = "") -> None:
        """Record a folder as skipped, unless it is recorded already."""
        self.skipped.setdefault(where, Skipped(where, kind, detail))

    def members(self, folder: Folder, where: str) -> list[Folder]:
        """Return the folders that may be classes or splits, and skip the remaining folders."""
        found = []
        for inner in folder.folders:
            path, output = join(where, inner.name), own_output(inner)
            if inner.problem == SYSTEM:
                self.skip(path, SYSTEM)
            elif output:
                self.skip(path, OWN_OUTPUT, output)
            elif unrelated(inner) and inner.name not in self.known:
                self.skip(path, UNRELATED)
            elif path not in self.skipped and inner.problem != LOOP:
                found.append(inner)
        return found

    def without_masks(self, members: list[Folder], where: str) -> list[Folder]:
        """Return the members without folders of masks that repeat the names of the other folders."""
        every = {member.name for member in members}
        masks = [m for m in members if m.name.lower() in ANNOTATION_FOLDERS and m.filled and names_in(m) <= every]
        for mask in masks:
            self.skip(join(where, mask.name), ANNOTATIONS)
        return [member for member in members if member not in masks]

    def skip_annotations(self, folder: Folder, where: str) -> None:
        """Skip the folders of masks and boxes in a folder."""
        for note in images_and_annotations(folder)[1]:
            self.skip(join(where, note.name), ANNOTATIONS)

    def without_copies(self, members: list[Folder], where: str) -> list[Folder]:
        """Return the members without copies of others: "cats - Copy", or pets/{cats,dogs} beside cats/ and dogs/.

        Raises:
            LayoutError: If a folder looks like such a copy but holds other images.
        """
        others, found = {member.name: member for member in members if member.total}, []
        for member in members:
            originals = {} if member.name in self.known else _originals(member, others)
            if not originals:
                found.append(member)
            elif _is_copy(member, originals):
                self.skip(join(where, member.name), COPY)
            else:
                seen = f"has {listed(list(originals))}, and {member.name}/ looks like a copy, but holds other images"
                remedy = f"remove {member.name}/ if it is a copy; otherwise merge the folders of each class"
                raise self.error(where, "second copy", seen, remedy)
        return found

    def without_leftovers(
        self, folder: Folder, where: str, seen: dict[tuple[int, int] | None, Folder] | None = None
    ) -> Folder:
        """Return a class folder without program output and without derived copies of its images, at any depth.

        Args:
            folder: The class folder.
            where: Path of the class folder.
            seen: Results by the identity of a folder, so that a folder with many links is only examined once.
        """
        seen = {} if seen is None else seen
        if folder.identity is not None and folder.identity in seen:
            return replace(seen[folder.identity], name=folder.name)
        names, found = [folder.name, *(inner.name for inner in folder.folders)], []
        derived = [f for f in folder.filled if is_derived(f.name, names) and f.name not in self.known]
        derived = derived if folder.total > sum(inner.total for inner in derived) else []
        for inner in folder.folders:
            path, output = join(where, inner.name), own_output(inner)
            if output:
                self.skip(path, OWN_OUTPUT, output)
            elif inner in derived:
                self.skip(path, DERIVED)
            else:
                found.append(self.without_leftovers(inner, path, seen))
        seen[folder.identity] = replace(folder, folders=tuple(found))
        return seen[folder.identity]


def left_out(tree: Folder, path: str) -> list[Skipped]:
    """Return the folders in `tree` that hold no images to classify."""
    leftovers = Leftovers(path, frozenset())
    leftovers.without_leftovers(tree, "")
    for where, folder in walk(tree, "", leftovers.skipped):
        for inner in folder.filled:
            if inner.name.lower() in ANNOTATION_FOLDERS and _annotates(inner, folder):
                leftovers.skip(join(where, inner.name), ANNOTATIONS)
    return list(leftovers.skipped.values())


def _annotates(note: Folder, parent: Folder) -> bool:
    """Return whether a folder with a name such as masks/ holds masks of its neighbours and is not a class."""
    others = [inner.name.lower() for inner in parent.filled if inner is not note]
    repeats = bool(note.filled) and names_in(note) <= names_in(parent)
    word = note.name.lower().rstrip("s")
    return repeats or bool(parent.images or set(others) & IMAGE_FOLDERS) or not any(word in name for name in others)


def _originals(member: Folder, others: dict[str, Folder]) -> dict[str, Folder]:
    """Return the folders beside `member` whose names are repeated by `member` or by several folders in it."""
    base = copied_name(member.name)
    if base in others and member.total:
        return {base: others[base]}
    common = names_in(inmost(member)) & (set(others) - {member.name})
    return {name: others[name] for name in sorted(common)} if len(common) > 1 else {}


def _is_copy(member: Folder, originals: dict[str, Folder]) -> bool:
    """Return whether the originals hold an image of the same name for every image in `member`."""
    parts = [member] if copied_name(member.name) in originals else inmost(member).filled
    pairs = [(part, originals.get(copied_name(part.name) or part.name)) for part in parts]
    return all(original is not None and _stems(part) <= _stems(original) for part, original in pairs)


def _stems(folder: Folder) -> set[str]:
    """Return the names of all images in and below a folder without extensions; a copy may have another format."""
    return {os.path.splitext(name)[0].lower() for _, inner in walk(folder, "") for name in inner.images}
