"""What the name of a folder, or the files in it, say about its part in a dataset: a split, masks, a saved run."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from recipes.data.folders.tree import Folder, walk
from recipes.data.tables.reader import SPLIT_FOLDERS

UNLABELLED = "unlabelled"
_ROLES = SPLIT_FOLDERS | {
    "eval": "validation", "evaluation": "validation", "tests": "test", "holdout": "test", "heldout": "test",
    "unlabeled": UNLABELLED, "unlabelled": UNLABELLED, "unsup": UNLABELLED, "unsupervised": UNLABELLED,
    "pred": UNLABELLED, "predict": UNLABELLED, "prediction": UNLABELLED, "predictions": UNLABELLED,
}  # fmt: skip
_FILLERS = "sets?|data|datasets?|images?|imgs?|photos?|pictures?|files?|folders?|samples?|splits?"
_ROLE = re.compile(
    rf"(?:(?:{_FILLERS}) ?)*({'|'.join(sorted(_ROLES, key=len, reverse=True))})(?: ?(?:{_FILLERS}))*(?: ?[0-9]+)?"
)

IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos", "pictures"})
ANNOTATION_FOLDERS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "bbox", "bboxes", "boxes", "segmentation",
    "segmentations", "segmentationclass", "segmentationobject", "ground_truth", "groundtruth", "gt", "trimaps",
})  # fmt: skip
_PLACEHOLDERS = frozenset({"unknown", "all", "any", "none", "dummy", "data", "images", "image", "img", "imgs", "0"})

# Pictures and films that are not read. A folder full of them is a class whose images are missing, not an unrelated one.
_UNREAD_PICTURES = frozenset({
    ".heic", ".heif", ".avif", ".tif", ".tiff", ".jp2", ".j2k", ".jxl", ".psd", ".ico", ".svg", ".pgm", ".ppm", ".pbm",
    ".pnm", ".tga", ".hdr", ".exr", ".dcm", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".apng",
    ".mp4", ".mov", ".avi", ".mkv", ".webm",
})  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")


def role_of(name: str) -> str | None:
    """Return "train", "validation", "test" or "unlabelled" for the name of a folder, None for any other name.

    >>> role_of("Training Set"), role_of("val2017"), role_of("cats")
    ('train', 'validation', None)
    """
    plain = re.sub(r"[\W_]+", " ", name).strip().lower()
    match = _ROLE.fullmatch(re.sub("(hold|held) out", r"\1out", plain))
    return _ROLES[match[1]] if match else None


def roles_of(names: Sequence[str]) -> dict[str, str | None]:
    """Return the role of each name, without what all names share where all have a role then: seg_train, seg_test."""
    roles = {name: role_of(name) for name in names}
    if len(names) < 2 or any(roles.values()):
        return roles
    shared = dict(zip(names, _without_shared(names), strict=True))
    found = {name: role_of(rest) for name, rest in shared.items()}
    return found if "train" in found.values() and all(found.values()) else roles


def _without_shared(names: Sequence[str]) -> list[str]:
    lower = [name.lower() for name in names]
    for turn in (slice(None), slice(None, None, -1)):  # the beginning, then the end
        turned = [name[turn] for name in lower]
        length = next((i for i, letters in enumerate(zip(*turned, strict=False)) if len(set(letters)) > 1), 0)
        shared = re.match(r".*[\W_\d]", turned[0][:length])
        lower = [name[shared.end() if shared else 0 :][turn] for name in turned]
    return lower


def mentions_split(name: str) -> bool:
    """Return whether one word of a name is that of a split: test1, my_test_photos."""
    return any(word in _ROLES for word in re.findall(r"[^\W_\d]+", name.lower()))


def classes_in_names(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return {class: {role: folder}} where every name joins a class and a split (cats_train, cats_test, dogs_train,
    dogs_test), else {}."""
    found = defaultdict(dict)
    for name in names:
        words = re.findall(r"[^\W_]+", name.lower())
        split = [word for word in words if _ROLES.get(word) not in (None, UNLABELLED)]
        if len(split) != 1 or len(words) < 2:
            return {}
        found["_".join(word for word in words if word != split[0])][_ROLES[split[0]]] = name
    whole = all(len(each) > 1 and "train" in each for each in found.values())
    return dict(found) if len(found) > 1 and whole else {}


def classes_in_file_names(names: Sequence[str]) -> list[str]:
    """Return the words that the names of images begin with (cat.1.jpg, dog.1.jpg), where they are few and recur."""
    words = Counter(match[0].lower() for name in names if (match := re.match(r"[^\W\d_]+", name)))
    recur = words.total() == len(names) and 2 <= len(words) <= 20 and min(words.values()) >= 5
    return sorted(words) if recur else []


def mask_files(names: Sequence[str]) -> list[str]:
    """Return the names that are another name with "_mask" at its end: x_mask.png, x_mask_1.png beside x.png."""
    likely = [name for name in names if "mask" in name.lower() or "seg" in name.lower()]
    if not likely:
        return []
    stems, found = {os.path.splitext(name)[0] for name in names}, []
    for name in likely:
        match = re.fullmatch(r"(.+)[_-](?:mask|seg|segmentation)(?:[_-]?\d+)?", os.path.splitext(name)[0], re.I)
        found += [name] if match and match[1] in stems else []
    return found


def stands_for_nothing(name: str, parent: str) -> bool:
    """Return whether a folder in `parent` is there for its form only, as `test/unknown`, `val/images`, `test/test`."""
    return name.lower() in _PLACEHOLDERS | {parent.lower()} or role_of(name) is not None


def own_output(folder: Folder) -> str | None:
    """Return what a folder is that this library, or Python, has written ("a saved run"), None for any other folder."""
    files = set(folder.others)
    if "pyvenv.cfg" in files:
        return "a Python environment"
    if {"result.json", "model.keras"} <= files or ".state" in folder.hidden:
        return "a saved run"
    inner = {inner.name: inner for inner in folder.folders}
    if "saved_model.pb" in files or "model_card.md" in (
        inner["assets.extra"].others if "assets.extra" in inner else ()
    ):
        return "an exported model"
    if inner and all(name.isdecimal() and own_output(each) == "an exported model" for name, each in inner.items()):
        return "an exported model"
    if {"recipe.json", "trials.csv"} <= files:
        return "a hyperparameter search"
    if {"pack.json", "unfinished.json"} & files and not folder.total:
        return "a pack"
    if files and not inner and not folder.total and all(re.fullmatch(r"[0-9a-f]{32}\.npz", name) for name in files):
        return "a feature cache"
    return None


def unrelated(folder: Folder) -> bool:
    """Return whether a folder holds files, but neither images nor pictures of a format that is not read."""
    files = [name for _, inner in walk(folder, "") for name in inner.others]
    return bool(files) and not folder.total and not any(_ending(name) in _UNREAD_PICTURES for name in files)


def archives_in(folder: Folder) -> list[str]:
    return [name for name in folder.others if is_archive(name)]


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def label_files(folder: Folder) -> list[str]:
    """Return the names of files in a folder that may hold labels of its images."""
    return [n for n in folder.others if _ending(n) in (".csv", ".tsv", ".json", ".jsonl", ".parquet") or "annot" in n]


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
