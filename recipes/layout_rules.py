"""Recognise the layout of a folder from the names in it alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from recipes.folder_names import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    UNLABELLED,
    archives_in,
    classes_in_names,
    label_files,
    mentions_split,
    own_output,
    role_of,
    roles_of,
    stands_for_nothing,
    unrelated,
)
from recipes.folder_tree import CLOSED, LOOP, SYSTEM, Folder, walk
from recipes.layout import (
    ANNOTATIONS,
    CLASSES,
    CLASSES_ABOVE_SPLITS,
    COPY,
    OWN_OUTPUT,
    SPLIT_NAMES,
    SPLITS,
    UNRELATED,
    UNSORTED,
    Layout,
    LayoutError,
    Part,
    Skipped,
)

_ARRANGE = "arrange the images as {0}/cats, {0}/dogs or as {0}/train/cats, {0}/val/cats, or give a CSV of path,label"


def recognise(tree: Folder, path: str, class_names: Sequence[str] | None = None) -> Layout:
    """Return the layout of a folder from the names in it alone.

    path:        of the folder, for messages.
    class_names: the classes, where they are known: a folder with such a name is a class, whatever else it looks like.

    Raises: LayoutError where the folder can be read in several ways, or in none, with what to do.
    """
    what = own_output(tree)
    if what and not tree.filled:
        raise LayoutError(path, OWN_OUTPUT, f"{path} is {what}, not a folder of images; give the folder of the images")
    return _Reading(path, frozenset(class_names or ())).layout(tree)


@dataclass
class _Reading:
    """A recognition under way. `where` is a folder's path below the dataset; members are the folders that count."""

    path: str
    known: frozenset[str]
    skipped: dict[str, Skipped] = field(default_factory=dict)
    nested: list[str] = field(default_factory=list)

    def layout(self, tree: Folder) -> Layout:
        anything = SPLIT_NAMES if self.known else ()
        where, folder = self.entered(tree, "", anything)
        members = self.members(folder, where)
        roles = self.roles(members)
        kind, parts = SPLITS, self.splits(members, roles, where)
        if not parts:
            kind, parts = CLASSES_ABOVE_SPLITS, self.splits_in_classes(members, where)
        if not parts:
            kind, parts = CLASSES, [Part("train", where, self.classes(folder, where))]
        return Layout(kind, where, tuple(parts), tuple(self.skipped.values()), tuple(self.nested))

    def error(self, where: str, problem: str, seen: str, remedy: str | None = None) -> LayoutError:
        at = os.path.join(self.path, where) if where else self.path
        return LayoutError(at, problem, f"{at} {seen}; {remedy or _ARRANGE.format(self.path)}")

    def skip(self, where: str, kind: str, detail: str = "") -> None:
        self.skipped.setdefault(where, Skipped(where, kind, detail))

    def roles(self, members: list[Folder]) -> dict[str, str | None]:
        roles = roles_of([member.name for member in members])
        return {name: None if name in self.known else role for name, role in roles.items()}

    def members(self, folder: Folder, where: str) -> list[Folder]:
        """The folders that may be classes or splits; the others are noted as skipped."""
        found = []
        for inner in folder.folders:
            here, what = _join(where, inner.name), own_output(inner)
            if inner.problem == SYSTEM:
                self.skip(here, SYSTEM)
            elif what:
                self.skip(here, OWN_OUTPUT, what)
            elif unrelated(inner):
                self.skip(here, UNRELATED)
            elif here not in self.skipped and inner.problem != LOOP:
                found.append(inner)
        return found

    def entered(self, folder: Folder, where: str, roles: Sequence[str]) -> tuple[str, Folder]:
        """The folder that holds the classes or splits: `folder`, or the one at the end of a chain of single folders.

        roles: of splits whose name a folder of the chain may have.
        """
        container = self.annotated(folder, where)
        members = [container] if container else self.members(folder, where)
        if len(members) != 1 or not (container or self.wraps(members[0], roles)):
            return where, folder
        before = dict(self.skipped)
        there, inner = self.entered(members[0], _join(where, members[0].name), roles)
        found = self.members(inner, there)
        named = any(self.roles(found).values()) or any(each.name in self.known for each in found)
        if container or len(found) > 1 or named:
            return there, inner
        self.skipped = before  # the chain ends in a single class folder, which is no reason to leave `folder`
        return where, folder

    def wraps(self, folder: Folder, roles: Sequence[str]) -> bool:
        named = folder.name in self.known or role_of(folder.name) not in (None, UNLABELLED, *roles)
        return not named and not folder.images and bool(folder.filled)

    def annotated(self, folder: Folder, where: str) -> Folder | None:
        """The folder of images beside folders of masks or boxes, which are skipped; None where there are none.

        Raises: LayoutError for images without class folders beside masks or boxes.
        """
        images, notes = _images_and_annotations(folder)
        if not images or not notes or any(inner.name in self.known for inner in (*images, *notes)):
            return None
        others = [f for f in folder.filled if f not in images and f not in notes]
        if len(images) > 1 or others or not images[0].filled or all(map(self.unsorted, images[0].filled)):
            names = _listed([inner.name for inner in (*images, *notes)])
            seen = (
                f"holds {names}, as detection and segmentation data do: boxes and masks are not the class of an image"
            )
            raise self.error(where, "annotations", seen)
        for note in notes:
            self.skip(_join(where, note.name), ANNOTATIONS)
        return images[0]

    def unsorted(self, folder: Folder) -> bool:
        """Whether a folder, named like a split, holds images but no class folders."""
        return role_of(folder.name) is not None and self.flat(folder)

    def flat(self, folder: Folder) -> bool:
        """Whether a folder holds images without class folders: in itself or in one that stands for nothing."""
        while not folder.images and len(folder.filled) == 1:
            (inner,) = folder.filled
            if inner.name in self.known or not stands_for_nothing(inner.name, folder.name):
                return False
            folder = inner
        return bool(folder.images) and not folder.filled

    def splits(self, members: list[Folder], roles: dict, where: str) -> list[Part]:
        """The parts where `members` are split folders with class folders in them; [] where they are none."""
        for closed in (m for m in members if roles[m.name] and m.problem == CLOSED):
            raise self.error(_join(where, closed.name), "unreadable", "cannot be read", "mend its permissions")
        sorted_ones = [m for m in members if roles[m.name] not in (None, UNLABELLED) and m.total and not self.flat(m)]
        trains = [member for member in sorted_ones if roles[member.name] == "train"]
        if not sorted_ones:
            return []
        if not trains:
            seen = (
                f"has class folders in {_listed([m.name for m in sorted_ones])} but no train/ with class folders in it"
            )
            raise self.error(where, "no train", seen, "add or rename it, or give one of them itself, for `evaluate`")
        if len(sorted_ones) > 1:  # a class called "test" is none of the splits where every split has it
            self.known |= {name for name in set.intersection(*map(_names, sorted_ones)) if role_of(name)}
        part = self.part(trains[0], "train", where)
        self.known |= set(part.classes)
        parts = {"train": part}
        for member in members:
            if member is not trains[0] and not self.left_out(member, roles[member.name], trains[0], where):
                self.add(parts, member, roles[member.name], where)
        return [parts[split] for split in SPLIT_NAMES if split in parts]

    def left_out(self, member: Folder, role: str | None, train: Folder, where: str) -> bool:
        """Whether a folder beside the training images is none of the splits, and noted as skipped."""
        here = _join(where, member.name)
        if not member.total:
            self.skip(here, UNRELATED)
        elif role == UNLABELLED or (self.flat(member) and (role or mentions_split(member.name))):
            innermost = next(inner for _, inner in walk(member, here) if inner.images)
            files = [*label_files(member), *label_files(innermost)]
            self.skip(here, UNSORTED, f"are the labels in {files[0]}?" if files else "")
        elif member.name.lower() in ANNOTATION_FOLDERS:
            self.skip(here, ANNOTATIONS)
        elif any(inner.name == train.name and _names(inner) == _names(train) for inner in member.filled):
            self.skip(here, COPY)
        else:
            return False
        return True

    def add(self, parts: dict[str, Part], member: Folder, role: str | None, where: str) -> None:
        if role is None:
            seen = f"has {parts['train'].folder}/ with class folders in it, and beside it {member.name}/"
            remedy = "keep only train/, val/ and test/ there, or only class folders"
            raise self.error(where, "stranger", seen, remedy)
        if role in parts:
            first = os.path.basename(parts[role].folder)
            seen = f"has two folders for the {role} images, {first}/ and {member.name}/"
            raise self.error(where, "split twice", seen, "keep one of them; the splits are train, val and test")
        parts[role] = self.part(member, role, where)

    def part(self, member: Folder, role: str, where: str) -> Part:
        there, folder = self.entered(member, _join(where, member.name), (role,))
        return Part(role, _join(where, member.name), self.classes(folder, there))

    def splits_in_classes(self, members: list[Folder], where: str) -> list[Part]:
        """The parts where every member is a class with split folders in it: ants/train, ants/val, bees/train, …"""
        classes = [member for member in members if member.total]
        inside = {m.name: {f.name: role_of(f.name) for f in m.filled} for m in classes if not m.images}
        whole = [name for name, roles in inside.items() if _are_splits(list(roles.values()))]
        if len(classes) < 2 or max((len(inside[name]) for name in whole), default=0) < 2:
            return []
        if self.known and not self.known.issuperset(whole):
            return []
        rest = [member.name for member in classes if member.name not in whole]
        if rest:
            splits = _listed(list(inside[whole[0]]))
            seen = f"has the split folders {splits} in {_listed(whole)}, but not in the same way in {_listed(rest)}"
            raise self.error(where, "splits in some classes", seen)
        found = []
        for split in SPLIT_NAMES:
            places = {
                member.name: tuple(
                    f"{_join(where, member.name)}/{name}"
                    for name, role in inside.get(member.name, {}).items()
                    if role == split
                )
                for member in members
            }
            found += [Part(split, where, places)] if any(places.values()) else []
        return found

    def classes(self, folder: Folder, where: str) -> dict[str, tuple[str, ...]]:
        """The class folders in `folder`, each with its path.

        Raises: LayoutError where they are none, or could as well be something else.
        """
        members = self.members(folder, where)
        if not any(member.total for member in members):
            raise self.none(folder, where, members)
        if not all(member.name in self.known for member in members if member.total):
            self.check_names(folder, members, where)
            self.check_levels(members, where)
        for member in members:
            self.look_into(member, _join(where, member.name))
        empty = {m.name for m in members if not m.total and self.roles(members)[m.name]}
        for name in empty:
            self.skip(_join(where, name), UNRELATED)
        return {member.name: (_join(where, member.name),) for member in members if member.name not in empty}

    def none(self, folder: Folder, where: str, members: list[Folder]) -> LayoutError:
        """The error for a folder without images in class folders."""
        archives, files = archives_in(folder), label_files(folder)
        if any(name.endswith(".tfrecord") for name in folder.others):
            seen = "holds .tfrecord files but no pack.json: it is no pack, or was not copied whole"
            return self.error(where, "not a pack", seen, "copy it whole, or pack the images again")
        if archives and not folder.images:
            seen = f"holds {_listed(archives, '')} but no class folders"
            return self.error(where, "archive", seen, "unpack it, and give the folder with the class folders")
        if folder.images:
            seen = f"holds {len(folder.images)} images but no class folders"
        elif members:
            names = _listed([member.name for member in members])
            seen = f"has folders {names} but no image in them: an image is a file that ends in .jpg, .png and so on"
        elif self.skipped:
            seen = f"has no class folders: it holds {_listed(list(self.skipped))}"
        else:
            seen = "is empty: no folders and no images in it"
        hint = f"; if {files[0]} says which image is of which class, make it a CSV of path,label" if files else ""
        return self.error(where, "no class folders", seen, _ARRANGE.format(self.path) + hint)

    def check_names(self, folder: Folder, members: list[Folder], where: str) -> None:
        """Raise a LayoutError for folders that are named like splits and hold images, but no class folders."""
        roles = self.roles(members)
        filled = [member.name for member in members if member.total]
        classes = [name for name in filled if not roles[name]]
        splits = [name for name in filled if roles[name] not in (None, "train")]  # a class may well be trains
        if not classes:
            for member in members:  # train/images and train/labels say more
                self.annotated(member, _join(where, member.name))
            notes = [inner.name for inner in _images_and_annotations(folder)[1]]
            beside = f" beside {_listed(notes)}: boxes and masks are not the class of an image" if notes else ""
            raise self.error(where, "unsorted splits", f"has {_listed(filled)} without class folders in it{beside}")
        if splits:
            seen = f"has class folders {_listed(classes)} and beside them {_listed(splits)} without class folders in it"
            remedy = (
                f"if {splits[0]}/ is a class, give it another name; if it is a split, move it out of this folder, and "
                "sort it into class folders, or give it to `recipes predict`"
            )
            raise self.error(where, "ambiguous split", seen, remedy)
        joined = classes_in_names(filled)
        if joined:
            name, folders = next(iter(joined.items()))
            remedy = f"move the images of {folders['train']}/ to {self.path}/train/{name}, and so on"
            seen = f"has folders whose names join a class and a split: {_listed(filled)}"
            raise self.error(where, "class and split in one name", seen, remedy)

    def check_levels(self, members: list[Folder], where: str) -> None:
        """Raise a LayoutError where it is not clear on which level the class folders are."""
        filled = [member for member in members if member.total]
        if len(filled) == 1 and filled[0].name.lower() in IMAGE_FOLDERS and self.flat(filled[0]):
            raise self.error(where, "no class folders", f"has its images in {filled[0].name}/, without class folders")
        ends = [_inmost(member) for member in filled]
        inner = [
            {f.name for f in end.filled if f.name.lower() not in IMAGE_FOLDERS | ANNOTATION_FOLDERS} for end in ends
        ]
        common = set.intersection(*inner)
        few = len(common) < 2 or any(len(names) > 2 * len(common) for names in inner)
        if len(filled) == 1 or few or any(end.images for end in ends) or all(name[0].isdigit() for name in common):
            return
        outer, names = _listed([member.name for member in filled]), _listed(sorted(common))
        raise self.error(
            where,
            "two levels",
            f"has {outer} and in each of them {names}: either could be the classes",
            f"if the classes are {outer}, move the images up into them; if {names}, merge the folders of one name",
        )

    def look_into(self, member: Folder, where: str) -> None:
        """Note masks that lie in a class folder, and several folders that are read as one class."""
        images, notes = _images_and_annotations(member)
        if images:
            for note in notes:
                self.skip(_join(where, note.name), ANNOTATIONS)
        inside = [inner for inner in member.filled if _join(where, inner.name) not in self.skipped]
        if len(inside) == 1 and not member.images:
            inside = _inmost(inside[0]).filled
        if len({inner.identity or inner.name for inner in inside}) > 1:
            self.nested.append(where)


def _are_splits(roles: list[str | None]) -> bool:
    """Whether these are the roles of one training split and, at most, one validation and one test split."""
    return "train" in roles and set(roles) <= set(SPLIT_NAMES) and len(set(roles)) == len(roles)


def _images_and_annotations(folder: Folder) -> tuple[list[Folder], list[Folder]]:
    images = [inner for inner in folder.filled if inner.name.lower() in IMAGE_FOLDERS]
    return images, [inner for inner in folder.folders if inner.name.lower() in ANNOTATION_FOLDERS]


def _inmost(folder: Folder) -> Folder:
    """The folder at the end of a chain of single folders."""
    while not folder.images and len(folder.filled) == 1:
        (folder,) = folder.filled
    return folder


def _names(folder: Folder) -> set[str]:
    return {inner.name for inner in folder.filled}


def _join(where: str, name: str) -> str:
    return f"{where}/{name}" if where else name


def _listed(names: Sequence[str], end: str = "/") -> str:
    shown = ", ".join(f"{name}{end}" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
