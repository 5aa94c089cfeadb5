"""Check how a folder is arranged. Each check raises a LayoutError that says what to do."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.core.output import shortened
from recipes.data.folders.layout import LayoutError
from recipes.data.folders.names import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    PROJECT_FOLDERS,
    classes_in_file_names,
    classes_in_names,
    folds,
    is_archive,
    is_date,
    is_derived,
    is_placeholder,
    label_files,
    model_files,
    numbered_alike,
    numbered_parts,
    role_of,
    roles_of,
)
from recipes.data.folders.tree import Folder, walk

_ARRANGE = "arrange the images as {0}/cats, {0}/dogs or as {0}/train/cats, {0}/val/cats, or give a CSV of path,label"
_PER_MODEL = 10  # images per model file; a folder with fewer images more likely holds charts than a class
_NO_CLASS = "boxes and masks do not give the class of an image"


@dataclass
class Checks:
    """The checks of one dataset. `where` is always the path of a folder relative to the dataset.

    Attributes:
        path: Path of the dataset, for messages.
        known: Names of folders that are certainly classes.
    """

    path: str
    known: frozenset[str]

    def error(self, where: str, problem: str, seen: str, remedy: str | None = None) -> LayoutError:
        """Return the error for a folder; `seen` is the predicate of its message, such as "is empty"."""
        at = os.path.join(self.path, where) if where else self.path
        return LayoutError(at, problem, f"{at} {seen}; {remedy or _ARRANGE.format(self.path)}")

    def roles(self, members: list[Folder]) -> dict[str, str | None]:
        """Return the role of each member by its name; None for members that are not splits."""
        roles = roles_of([member.name for member in members])
        return {name: None if name in self.known else role for name, role in roles.items()}

    def flat(self, folder: Folder) -> bool:
        """Return whether a folder holds images without class folders, directly or in a folder such as images/."""
        while not folder.images and len(folder.filled) == 1:
            (inner,) = folder.filled
            if inner.name in self.known or not is_placeholder(inner.name, folder.name):
                return False
            folder = inner
        return bool(folder.images) and not folder.filled

    def images_beside_annotations(self, folder: Folder, where: str) -> Folder | None:
        """Return the folder of images beside folders of masks or boxes; None without such folders.

        Raises:
            LayoutError: If images without class folders lie beside masks or boxes.
        """
        images, notes = images_and_annotations(folder)
        if not images or not notes or any(inner.name in self.known for inner in (*images, *notes)):
            return None
        others = [f for f in folder.filled if f not in images and f not in notes]
        inside = images[0].filled  # these may be splits without class folders
        if len(images) > 1 or others or all(role_of(each.name) and self.flat(each) for each in inside):
            names = listed([*images, *notes])
            seen = f"holds {names}, like a dataset for detection or segmentation: {_NO_CLASS}"
            raise self.error(where, "annotations", seen)
        return images[0]

    def none(self, folder: Folder, where: str, members: list[Folder]) -> LayoutError:
        """Return the error for a folder without images in class folders; `members` are the possible classes."""
        archives = [name for name in folder.others if is_archive(name)]
        if any(name.endswith(".tfrecord") for name in folder.others):
            seen = "holds .tfrecord files but no pack.json: it is not a pack, or was not copied completely"
            return self.error(where, "not a pack", seen, "copy the pack completely, or pack the images again")
        if archives and not folder.images:
            seen = f"holds {shortened(archives)} but no class folders"
            return self.error(where, "archive", seen, "unpack the archive, and give the folder with the class folders")
        if folder.images:
            seen = f"holds {len(folder.images)} images but no class folders"
        elif members:
            names = listed(members)
            seen = (
                f"has folders {names} but no image in them: images are recognised by extensions such as .jpg and .png"
            )
            kinds = sorted({k for member in members for _, f in walk(member, "") for k in f.unsupported.values()})
            if kinds:
                shown = ", ".join(kinds)
                seen = f"has folders {names} whose pictures are all in formats that are not supported: {shown}"
                return self.error(where, "no class folders", seen, "convert them to JPEG or PNG")
        elif folder.folders:
            seen = f"has no class folders: it holds {listed(folder.folders)}"
        else:
            seen = "is empty: it holds no folders and no images"
        return self.error(where, "no class folders", seen, _ARRANGE.format(self.path) + _hint([folder]))

    def check_names(self, folder: Folder, members: list[Folder], where: str) -> None:
        """Raise a LayoutError for folders that are named like splits but hold images without class folders."""
        roles = self.roles(members)
        filled = [member.name for member in members if member.total]
        classes = [name for name in filled if not roles[name]]
        splits = [name for name in filled if roles[name] not in (None, "train")]  # "trains" may be a class
        if not classes:
            for member in members:  # an error about train/images and train/labels is more specific
                self.images_beside_annotations(member, join(where, member.name))
            notes = [inner.name for inner in images_and_annotations(folder)[1]]
            beside = f" beside {listed(notes)}: {_NO_CLASS}" if notes else ""
            hint = _hint([folder, *(inner for member in members for inner in (member, inmost(member)))])
            seen = f"has {listed(filled)} without class folders{beside}"
            raise self.error(where, "unsorted splits", seen, _ARRANGE.format(self.path) + hint)
        if splits:
            seen = f"has class folders {listed(classes)} and beside them {listed(splits)} without class folders"
            remedy = (
                f"if {splits[0]}/ is a class, give it another name; if it is a split, sort it into class folders, "
                "or move it out of this folder"
            )
            raise self.error(where, "ambiguous split", seen, remedy)
        joined = classes_in_names(classes)
        if joined:
            name, folders = next((name, folders) for name, folders in joined.items() if len(folders) > 1)
            role, first = next(iter(sorted(folders.items(), key=lambda item: item[0] != "train")))
            remedy = (
                f"move the images of {first[0]}/ to {self.path}/{role}/{name}, and so on, for every class and split"
            )
            seen = (
                f"has folders whose names join a class and a split, but not for every class and split: {listed(filled)}"
            )
            raise self.error(where, "class and split in one name", seen, remedy)

    def check_folds(self, members: list[Folder], where: str) -> None:
        """Raise a LayoutError for folders that are parts of one dataset, such as folds, and not classes."""
        filled = [member for member in members if member.total and member.name not in self.known]
        names = [member.name for member in filled]
        inside = [{n for n in names_in(member) - IMAGE_FOLDERS if not is_date(n)} for member in filled]
        if folds(names) or (numbered_parts(names) and all(inside)):
            remedy = (
                "merge their class folders into one set of class folders, keep one part as val/ and merge the "
                "others as train/, or give a CSV of path,label,split"
            )
            raise self.error(
                where, "folds", f"has {listed(names)}, which are parts of one dataset and not classes", remedy
            )

    def check_derived(self, members: list[Folder], where: str) -> None:
        """Raise a LayoutError for folders beside the classes whose names or files show that they are not classes."""
        filled = [member for member in members if member.total and member.name not in self.known]
        names = [member.name for member in filled]
        derived = [member for member in filled if is_derived(member.name, names)]
        classes = [member for member in filled if member not in derived]
        above = any(len(member.filled) > 1 and not member.images for member in derived)
        if derived and (len(classes) > 1 or (classes and above)):
            found = listed(derived)
            seen = f"has {listed(classes)} and beside them {found}"
            seen += ", whose name means copies made from other images"
            raise self.error(where, "derived images", seen, f"move {found} elsewhere, or, if it is a class, rename it")
        for member in filled:
            models = model_files(member)
            if models and member.total <= _PER_MODEL * len(models):
                seen = f"holds {models[0]} and {member.total} images, like the output of a program"
                remedy = "move the folder elsewhere, or, if it is a class, move the model files out of it"
                raise self.error(join(where, member.name), "output or class", seen, remedy)

    def check_project(self, members: list[Folder], where: str) -> None:
        """Raise a LayoutError for a project folder: one folder with folders of images, beside docs/ and results/."""
        filled = [member for member in members if member.total]
        other = [m for m in filled if m.name in self.known or m.name.lower() not in PROJECT_FOLDERS]
        if len(other) != 1 or len(filled) == 1:
            return
        name, inside = other[0].name, inmost(other[0])
        if len(inside.filled) > 1 and not inside.images:
            beside = listed([member.name for member in filled if member is not other[0]])
            seen = f"holds folders of images in {name}/ ({listed(inside.filled)}), and beside it {beside}"
            seen += ", whose names mean other parts of a project"
            remedy = (
                f"give {os.path.join(self.path, where, name)} itself, or, if these folders are classes, rename them"
            )
            raise self.error(where, "project", seen, remedy)

    def _subdivided(self, members: list[Folder], inner: set[str]) -> bool:
        """Return whether each member holds folders named by numbers that divide a class, such as years."""
        numbers = all(name[0].isdigit() for name in inner)
        return numbers and (all(map(is_date, inner)) or not numbered_alike([member.name for member in members]))

    def _check_datasets(self, members: list[Folder], where: str) -> None:
        """Raise a LayoutError if a folder beside the classes is a dataset itself, with train/ and test/."""
        for member in members:
            inside = [inner.name for inner in inmost(member).filled]
            roles = [role_of(name) for name in inside if name not in self.known]
            if "train" in roles and {"validation", "test"} & set(roles):
                seen = f"has {listed(members)}, of which {member.name}/ holds the split folders"
                seen += f" {listed(inside)}: it is a dataset, not a class"
                remedy = f"give {member.name}/ itself, or move {member.name}/ elsewhere"
                raise self.error(where, "dataset among classes", seen, remedy)

    def check_levels(self, members: list[Folder], where: str) -> None:
        """Raise a LayoutError if it is not clear on which level the class folders are."""
        filled = [member for member in members if member.total]
        if len(filled) == 1 and filled[0].name.lower() in IMAGE_FOLDERS and self.flat(filled[0]):
            raise self.error(where, "no class folders", f"has its images in {filled[0].name}/, without class folders")
        ends = [inmost(member) for member in filled]
        self._check_datasets(filled, where)
        inner = [
            {f.name for f in end.filled if f.name.lower() not in IMAGE_FOLDERS | ANNOTATION_FOLDERS} for end in ends
        ]
        common = set.intersection(*inner)
        few = len(common) < 2 or any(len(names) > 2 * len(common) for names in inner)
        if len(filled) == 1 or few or any(end.images for end in ends) or self._subdivided(filled, common):
            return
        outer, names = listed(filled), listed(sorted(common))
        raise self.error(
            where,
            "two levels",
            f"has {outer} and in each of them {names}: both levels could be the classes",
            f"if the classes are {outer}, move all images directly into these folders; if the classes are "
            f"{names}, merge the folders of the same name",
        )


def images_and_annotations(folder: Folder) -> tuple[list[Folder], list[Folder]]:
    """Return the folders in a folder whose names mean images, and those whose names mean annotations."""
    images = [inner for inner in folder.filled if inner.name.lower() in IMAGE_FOLDERS]
    return images, [inner for inner in folder.folders if inner.name.lower() in ANNOTATION_FOLDERS]


def inmost(folder: Folder) -> Folder:
    """Return the folder at the end of a chain of single folders."""
    while not folder.images and len(folder.filled) == 1:
        (folder,) = folder.filled
    return folder


def names_in(folder: Folder) -> set[str]:
    return {inner.name for inner in folder.filled}


def join(where: str, name: str) -> str:
    return f"{where}/{name}" if where else name


def _hint(folders: Sequence[Folder]) -> str:
    """Return the end of a message: a hint at the classes of images that lie outside class folders."""
    files = [name for folder in folders for name in label_files(folder)]
    if files:
        return f"; if {files[0]} lists the class of each image, convert it to a CSV of path,label"
    words = next((words for folder in folders if (words := classes_in_file_names(folder.images))), None)
    return f"; names of images begin with {', '.join(words)}: these words may be the classes" if words else ""


def listed(folders: Sequence[Folder | str]) -> str:
    """Return the names of the first five folders and the number of remaining folders."""
    return shortened([f"{each.name if isinstance(each, Folder) else each}/" for each in folders])
