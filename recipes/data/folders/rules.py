"""Recognise the layout of a folder from the names in it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from recipes.data.folders.checks import images_and_annotations, inmost, join, listed, names_in
from recipes.data.folders.layout import (
    ANNOTATIONS,
    CLASSES,
    CLASSES_ABOVE_SPLITS,
    COPY,
    JOINED,
    OWN_OUTPUT,
    SPLIT_NAMES,
    SPLITS,
    UNRELATED,
    UNSORTED,
    Layout,
    LayoutError,
    Part,
)
from recipes.data.folders.leftovers import Leftovers
from recipes.data.folders.names import (
    ANNOTATION_FOLDERS,
    UNLABELLED,
    all_have_masks,
    classes_in_names,
    label_files,
    mask_files,
    mentions_split,
    own_output,
    role_of,
)
from recipes.data.folders.tree import CLOSED, Folder, walk


def recognise(tree: Folder, path: str, class_names: Sequence[str] | None = None) -> Layout:
    """Return the layout of a folder, using only the names in it.

    Args:
        tree: The folder.
        path: Path of the folder, for messages.
        class_names: The classes, if they are known. A folder with such a name is certainly a class.

    Raises:
        LayoutError: If the folder can be read in several ways or in none; the message says what to do.
    """
    output = own_output(tree)
    if output and not tree.filled:
        raise LayoutError(
            path, OWN_OUTPUT, f"{path} is {output}, not a folder of images; give the folder of the images"
        )
    return _Recognition(path, frozenset(class_names or ())).layout(tree)


@dataclass
class _Recognition(Leftovers):
    """Recognises the layout of one folder. Members are the folders that may be classes or splits."""

    nested: list[str] = field(default_factory=list)
    mask_files: list[str] = field(default_factory=list)

    def layout(self, tree: Folder) -> Layout:
        where, folder = self.entered(tree, "", SPLIT_NAMES if self.known else ())
        members = self.members(folder, where)
        roles = self.roles(members)
        kind, parts = SPLITS, self.splits(members, roles, where)
        if not parts:
            self.check_folds(members, where)
            kind, parts = JOINED, self.splits_in_names(members, where)
        if not parts:
            self.check_project(members, where)
            kind, parts = CLASSES_ABOVE_SPLITS, self.splits_in_classes(members, where)
        if not parts:
            kind, parts = CLASSES, [Part("train", where, self.classes(folder, where))]
        return Layout(
            kind, where, tuple(parts), tuple(self.skipped.values()), tuple(self.nested), tuple(self.mask_files)
        )

    def entered(self, folder: Folder, where: str, roles: Sequence[str]) -> tuple[str, Folder]:
        """Return the folder that holds the classes or splits: `folder`, or the last of nested single folders.

        Args:
            folder: The first folder of the chain.
            where: Path of that folder.
            roles: Roles of the splits after which a folder of the chain may be named.
        """
        container = self.images_beside_annotations(folder, where)
        if container:
            self.skip_annotations(folder, where)
        members = [container] if container else self.members(folder, where)
        if len(members) != 1 or not (container or self.wraps(members[0], roles)):
            return where, folder
        before = dict(self.skipped)
        inside, inner = self.entered(members[0], join(where, members[0].name), roles)
        found = self.members(inner, inside)
        named = any(self.roles(found).values()) or any(each.name in self.known for each in found)
        if container or len(found) > 1 or named:
            return inside, inner
        self.skipped = before  # the chain ends in a single class folder, so `folder` itself holds the classes
        return where, folder

    def wraps(self, folder: Folder, roles: Sequence[str]) -> bool:
        """Return whether a single folder only wraps the folders in it."""
        named = folder.name in self.known or role_of(folder.name) not in (None, UNLABELLED, *roles)
        return not named and not folder.images and bool(folder.filled)

    def splits(self, members: list[Folder], roles: dict[str, str | None], where: str) -> list[Part]:
        """Return the splits if `members` are split folders with class folders in them, otherwise []."""
        for closed in (m for m in members if roles[m.name] and m.problem == CLOSED):
            raise self.error(
                join(where, closed.name), "unreadable", "cannot be read", "correct the permissions of this folder"
            )
        for train in (m for m in members if roles[m.name] == "train" and m.folders and m.undecodable and not m.total):
            raise self.none(train, join(where, train.name), self.members(train, join(where, train.name)))
        sorted_ones = [m for m in members if roles[m.name] not in (None, UNLABELLED) and m.total and not self.flat(m)]
        trains = [member for member in sorted_ones if roles[member.name] == "train"]
        if not sorted_ones:
            return []
        if not trains:
            seen = f"has class folders in {listed(sorted_ones)} but no train/ with class folders"
            raise self.error(
                where,
                "no train",
                seen,
                "add train/ or rename a folder to train/; for `evaluate`, give one of these folders itself",
            )
        if len(sorted_ones) > 1:  # if every split holds a folder "test", that folder is a class
            self.known |= {name for name in set.intersection(*map(names_in, sorted_ones)) if role_of(name)}
        part = self.part(trains[0], "train", where)
        self.known |= set(part.classes)
        parts = {"train": part}
        for member in members:
            if member is not trains[0] and not self.left_out(member, roles[member.name], trains[0], where):
                self.add(parts, member, roles[member.name], where)
        return [parts[split] for split in SPLIT_NAMES if split in parts]

    def left_out(self, member: Folder, role: str | None, train: Folder, where: str) -> bool:
        """Skip a folder beside the training images if it is not a split, and return whether that is the case."""
        path = join(where, member.name)
        if not member.total and role and (member.folders or member.others):
            raise self.none(member, path, self.members(member, path))
        if not member.total:
            self.skip(path, UNSORTED if member.undecodable else UNRELATED)
        elif role == UNLABELLED or (self.flat(member) and (role or mentions_split(member.name))):
            self.skip_unsorted([member], where)
        elif member.name.lower() in ANNOTATION_FOLDERS:
            self.skip(path, ANNOTATIONS)
        elif any(inner.name == train.name and names_in(inner) == names_in(train) for inner in member.filled):
            self.skip(path, COPY)
        else:
            return False
        return True

    def unsorted_splits(self, members: list[Folder]) -> list[Folder]:
        """Return the members that are named like splits but hold images without class folders."""
        roles = self.roles(members)
        return [m for m in members if roles[m.name] and m.total and self.flat(m)]

    def skip_unsorted(self, members: list[Folder], where: str) -> None:
        """Skip folders of images without class folders."""
        for member in members:
            innermost = next(inner for _, inner in walk(member, "") if inner.images)
            files = [*label_files(member), *label_files(innermost)]
            self.skip(join(where, member.name), UNSORTED, f"the labels may be in {files[0]}" if files else "")

    def add(self, parts: dict[str, Part], member: Folder, role: str | None, where: str) -> None:
        """Add a split folder to `parts`, or raise a LayoutError if it cannot be a further split."""
        if role is None:
            seen = f"has {parts['train'].folder}/ with class folders, and beside it {member.name}/"
            remedy = "keep only train/, val/ and test/ there, or only class folders"
            raise self.error(where, "stranger", seen, remedy)
        if role in parts:
            first = os.path.basename(parts[role].folder)
            seen = f"has two folders for the {role} images, {first}/ and {member.name}/"
            raise self.error(where, "split twice", seen, "keep one of them; the splits are train, val and test")
        parts[role] = self.part(member, role, where)

    def part(self, member: Folder, role: str, where: str) -> Part:
        """Return the split that a split folder holds."""
        inside, folder = self.entered(member, join(where, member.name), (role,))
        return Part(role, join(where, member.name), self.classes(folder, inside))

    def splits_in_names(self, members: list[Folder], where: str) -> list[Part]:
        """Return the splits if every name joins a class and a split, such as cats_train and cats_test, otherwise []."""
        names = [member.name for member in members]
        joined = {} if self.known.intersection(names) else classes_in_names(names)
        roles = [sorted(each) for each in joined.values()]
        folders = [name for each in joined.values() for found in each.values() for name in found]
        unique = len(folders) == len(names) == sum(map(len, roles))
        if len(joined) < 2 or not unique or "train" not in roles[0] or roles.count(roles[0]) < len(roles):
            return []
        for member in members:
            path = join(where, member.name)
            self.look_into(self.without_leftovers(member, path), path)
        places = {name: {role: join(where, found[0]) for role, found in each.items()} for name, each in joined.items()}
        return _parts(places, where)

    def splits_in_classes(self, members: list[Folder], where: str) -> list[Part]:
        """Return the splits if every member is a class with split folders, as in ants/train and ants/val, or []."""
        inside = {m.name: {f.name: role_of(f.name) for f in m.filled} for m in members if m.total and not m.images}
        whole = [name for name, roles in inside.items() if _are_splits(list(roles.values()))]
        flat = self.unsorted_splits([member for member in members if member.name not in whole])
        classes = [member for member in members if member.total and member not in flat]
        if len(classes) < 2 or max((len(inside[name]) for name in whole), default=0) < 2:
            return []
        if self.known and not self.known.issuperset(whole):
            return []
        some = [name for name in whole if "validation" in inside[name].values()]
        lacking = [m.name for m in classes if some and "validation" not in {role_of(f.name) for f in m.folders}]
        rest = [member.name for member in classes if member.name not in whole] or lacking
        if rest:
            first = next(name for name in some or whole if name not in rest)
            splits = listed(list(inside[first]))
            seen = f"has the split folders {splits} in {first}/, but not the same ones in {listed(rest)}"
            remedy = "give every class the same split folders; a split folder may be empty"
            raise self.error(where, "splits in some classes", seen, remedy)
        self.skip_unsorted(flat, where)
        places = {member.name: {} for member in members if member not in flat}
        for member in classes:
            for inner in member.filled:
                path = f"{join(where, member.name)}/{inner.name}"
                self.look_into(self.without_leftovers(inner, path), path)
                places[member.name][role_of(inner.name)] = path
        return _parts(places, where)

    def classes(self, folder: Folder, where: str) -> dict[str, tuple[str, ...]]:
        """Return the class folders in `folder`, each with its path.

        Raises:
            LayoutError: If there are no class folders, or the folders may have another meaning.
        """
        members = self.without_masks(self.members(folder, where), where)
        members = self.without_copies(members, where)
        if self.known:  # in that case a folder called "test" is not a class
            flat = self.unsorted_splits(members)
            if len(flat) < len([member for member in members if member.total]):
                self.skip_unsorted(flat, where)
                members = [member for member in members if member not in flat]
        members = [self.without_leftovers(member, join(where, member.name)) for member in members]
        if not any(member.total for member in members):
            raise self.none(folder, where, members)
        if not all(member.name in self.known for member in members if member.total):
            self.check_names(folder, members, where)
            self.check_folds(members, where)
            self.check_derived(members, where)
            self.check_levels(members, where)
        roles, found = self.roles(members), {}
        for member in members:
            path = join(where, member.name)
            if not member.total and roles[member.name]:
                self.skip(path, UNSORTED if member.undecodable else UNRELATED)
            else:
                self.look_into(member, path)
                found[member.name] = (path,)
        return found

    def look_into(self, member: Folder, where: str) -> None:
        """Skip masks in a class folder, and record class folders whose inner folders are read as one class."""
        if member.images or images_and_annotations(member)[0]:
            self.skip_annotations(member, where)
        inside = [inner for inner in member.filled if join(where, inner.name) not in self.skipped]
        if len(inside) == 1 and not member.images:
            inside = inmost(inside[0]).filled
        if len({inner.identity or inner.name for inner in inside}) > 1:
            self.nested.append(where)
        for place, inner in walk(member, where, self.skipped):
            masks = mask_files(inner.images)
            if all_have_masks(inner.images, masks):
                for name in masks:
                    self.skip(join(place, name), ANNOTATIONS)
            else:
                self.mask_files += [join(place, name) for name in masks]


def _parts(places: dict[str, dict[str, str]], where: str) -> list[Part]:
    """Return the splits of classes that have one folder per split; `places` is {class: {split: path}}."""
    present = [split for split in SPLIT_NAMES if any(split in each for each in places.values())]
    return [
        Part(split, where, {name: (each[split],) if split in each else () for name, each in places.items()})
        for split in present
    ]


def _are_splits(roles: list[str | None]) -> bool:
    """Return whether `roles` are one training split, at most one validation split, and at most one test split."""
    return "train" in roles and set(roles) <= set(SPLIT_NAMES) and len(set(roles)) == len(roles)
