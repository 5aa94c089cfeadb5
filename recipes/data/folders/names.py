"""Recognise the role of a folder by its name and the files in it: a split, masks, a saved run."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from recipes.data.folders.tree import Folder, walk
from recipes.data.tables.names import SPLIT_FOLDERS

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
_SPLITS = "|".join(sorted((word for word in _ROLES if _ROLES[word] != UNLABELLED), key=len, reverse=True))
_GLUED = re.compile(rf"({_SPLITS}).{{3,}}|.{{3,}}?({_SPLITS})", re.I)
_SEPARATORS = " _-.,"  # separators between the words of a name
_PART = re.compile(
    r"(?:k?[\W_]*folds?|cv|split|part|partition|batch|chunk|shard|subset|group|session)[\W_]*(?:\d+|[a-j])|\d+[\W_]*folds?",
    re.I,
)
_DERIVED = re.compile("thumbs|thumbnails?|previews?|caches?|cached|tmp|augmented|augmentations?|resized|cropped")
_MASK = re.compile(r"(.+)[_-](?:mask|seg|segmentation|gt|ground_?truth)(?:[_-]?\d+)?", re.I)
_COPIED = re.compile(r"copy of (.+)|(.+?)(?:[ _-]+copy(?: ?\(?\d+\)?)?| \(\d+\))", re.I)

IMAGE_FOLDERS = frozenset({"image", "images", "img", "imgs", "jpegimages", "photos", "pictures"})
ANNOTATION_FOLDERS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "bbox", "bboxes", "boxes", "segmentation",
    "segmentations", "segmentationclass", "segmentationobject", "ground_truth", "groundtruth", "gt", "trimaps",
})  # fmt: skip
PROJECT_FOLDERS = frozenset({
    "docs", "doc", "results", "notebooks", "src", "scripts", "models", "logs", "checkpoints", "outputs", "output",
    "plots", "figures", "figs", "reports", "assets", "screenshots",
})  # fmt: skip
_PLACEHOLDERS = frozenset({"unknown", "all", "any", "none", "dummy", "data", "images", "image", "img", "imgs", "0"})

_MODELS = (".keras", ".h5", ".hdf5", ".pt", ".pth", ".onnx", ".ckpt", ".tflite", ".safetensors", ".pb")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")


def role_of(name: str) -> str | None:
    """Return "train", "validation", "test" or "unlabelled" if the name of a folder has this meaning, otherwise None.

    >>> role_of("Training Set"), role_of("val2017"), role_of("cats")
    ('train', 'validation', None)
    """
    # a number or letter before the name: 1_train, "a. Training Set"
    unnumbered = re.sub(r"^(?:\d+[\W_]+|[a-z][.)] *)", "", name, flags=re.I)
    plain = re.sub(r"[\W_]+", " ", unnumbered).strip().lower()
    match = _ROLE.fullmatch(re.sub("(hold|held) out", r"\1out", plain))
    return _ROLES[match[1]] if match else None


def roles_of(names: Sequence[str]) -> dict[str, str | None]:
    """Return the role of each name. A common part, as in seg_train and seg_test, is ignored if all then have a role."""
    roles = {name: role_of(name) for name in names}
    if len(names) < 2 or any(roles.values()):
        return roles
    shared = dict(zip(names, _without_shared(names), strict=True))
    found = {name: role_of(rest) for name, rest in shared.items()}
    return found if "train" in found.values() and all(found.values()) else roles


def _without_shared(names: Sequence[str]) -> list[str]:
    """Return lower-case names without the words that all of them begin or end with."""
    lower = [name.lower() for name in names]
    for order in (slice(None), slice(None, None, -1)):  # first for the beginning, then for the end
        ordered = [name[order] for name in lower]
        length = next((i for i, letters in enumerate(zip(*ordered, strict=False)) if len(set(letters)) > 1), 0)
        shared = re.match(r".*[\W_\d]", ordered[0][:length])
        lower = [name[shared.end() if shared else 0 :][order] for name in ordered]
    return lower


def mentions_split(name: str) -> bool:
    """Return whether one word of a name means a split, as in test1 and my_test_photos."""
    return any(word in _ROLES for word in re.findall(r"[^\W_\d]+", name.lower()))


def classes_in_names(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return {class: {role: folders}} for names that join a class and a split, such as cats_train, trainA, testdogs.

    The result is empty unless some class has several splits, because "test_tube" and "train_station" are classes.
    """
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    spelling = {}
    for name in names:
        role, rest = _split_and_rest(name)
        if role:
            found[spelling.setdefault(rest.casefold(), rest)][role].append(name)
    return dict(found) if any(len(each) > 1 for each in found.values()) else {}


def _split_and_rest(name: str) -> tuple[str, str]:
    """Return the role of one word of a name, and the other words, such as ("test", "dogs"); ("", "") without a role.

    A word ends at a separator, a digit or a capital letter. If no word means a split, the name may begin or end with
    such a word, as in testdogs.
    """
    words = list(re.finditer(r"[A-Z]*[a-z]+|[A-Z]+|[^\W\d_A-Za-z]+", name))
    splits = [word for word in words if _ROLES.get(word[0].lower()) not in (None, UNLABELLED)]
    glued = None if splits else _GLUED.fullmatch(name)
    if role_of(name) or len(splits) > 1:
        return "", ""
    if splits:
        begin, end = splits[0].span()
    elif glued:
        begin, end = glued.span(1 if glued[1] else 2)
    else:
        return "", ""
    rest = " ".join(filter(None, (name[:begin].strip(_SEPARATORS), name[end:].strip(_SEPARATORS))))
    return (_ROLES[name[begin:end].lower()], rest) if rest else ("", "")


def numbered_parts(names: Sequence[str]) -> bool:
    """Return whether all names mean numbered parts of a dataset, such as folds of a cross-validation."""
    return len(names) > 1 and all(_PART.fullmatch(name) for name in names)


def folds(names: Sequence[str]) -> bool:
    """Return whether all names mean folds, which are never classes."""
    return numbered_parts(names) and all("fold" in name.lower() for name in names)


def numbered_alike(names: Sequence[str]) -> bool:
    """Return whether names only differ in their numbers, like user1 and user2."""
    stems = {re.sub(r"\d+", "", name) for name in names}
    return len(names) > 1 and len(stems) == 1 and bool(re.search(r"[^\W_]", min(stems)))


def is_date(name: str) -> bool:
    """Return whether a name begins with a year, like 2019 and 2019-05-01."""
    return bool(re.match(r"(?:19|20)\d\d(?!\d)|(?:19|20)\d{6}", name))


def is_derived(name: str, others: Iterable[str] = ()) -> bool:
    """Return whether a name only means images made from other images, like thumbs and Augmented Images.

    Args:
        name: Name of the folder.
        others: Names of folders that may hold the original images. The name may contain one of them, as in
            cats_augmented.
    """
    words = _words(name)
    rest = [word for word in words if not _DERIVED.fullmatch(word)]
    plain = all(re.fullmatch(_FILLERS, word) for word in rest)
    return len(rest) < len(words) and (plain or any(rest == _words(other) for other in others))


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.lower())


def copied_name(name: str) -> str:
    """Return the original name of a copy made by a file manager ("cats - Copy", "cats (1)"); "" for other names."""
    match = _COPIED.fullmatch(name)
    return (match[1] or match[2]).strip() if match else ""


def classes_in_file_names(names: Sequence[str]) -> list[str]:
    """Return the first words of names such as cat.1.jpg and dog.1.jpg, if these words are few and recur."""
    words = Counter(match[0].lower() for name in names if (match := re.match(r"[^\W\d_]+", name)))
    recur = words.total() == len(names) and 2 <= len(words) <= 20 and min(words.values()) >= 5
    return sorted(words) if recur else []


def mask_files(names: Sequence[str]) -> dict[str, str]:
    """Return {name: stem} for names that add a word such as "_mask" to another stem: x_mask_1.png beside x.png."""
    stems, found = {os.path.splitext(name)[0] for name in names}, {}
    for name in names:
        match = _MASK.fullmatch(os.path.splitext(name)[0])
        if match and match[1] in stems:
            found[name] = match[1]
    return found


def all_have_masks(names: Sequence[str], masks: Mapping[str, str]) -> bool:
    """Return whether at least 90 % of the images in `names` have a mask; `masks` is the result of `mask_files`."""
    return bool(masks) and len(set(masks.values()) - masks.keys()) >= 0.9 * (len(names) - len(masks))


def is_placeholder(name: str, parent: str) -> bool:
    """Return whether a folder name within `parent` has no meaning, as in `test/unknown`, `val/images`, `test/test`."""
    return name.lower() in _PLACEHOLDERS | {parent.lower()} or role_of(name) is not None


def own_output(folder: Folder) -> str | None:
    """Return the kind of a folder that this library or Python wrote, as in "a saved run", or None."""
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
    if inner and len(folder.images) <= len(inner) and all(map(own_output, inner.values())):
        return "a folder of saved runs or exports"  # such a folder may also hold a few charts
    if {"recipe.json", "trials.csv"} <= files:
        return "a hyperparameter search"
    if {"pack.json", "unfinished.json"} & files and not folder.total:
        return "a pack"
    if files and not inner and not folder.total and all(re.fullmatch(r"[0-9a-f]{32}\.npz", name) for name in files):
        return "a feature cache"
    return None


def model_files(folder: Folder) -> list[str]:
    """Return the names of files in and below a folder that look like the output of a training run."""
    names = [name for _, inner in walk(folder, "") for name in inner.others]
    return [name for name in names if _ending(name) in _MODELS or name.startswith("events.out.tfevents")]


def unrelated(folder: Folder) -> bool:
    """Return whether a folder holds files but no images and no pictures of unsupported formats."""
    files = any(inner.others for _, inner in walk(folder, ""))
    return files and not folder.total and not folder.undecodable


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


def label_files(folder: Folder) -> list[str]:
    """Return the names of the files in a folder that may contain the labels of its images."""
    return [n for n in folder.others if _ending(n) in (".csv", ".tsv", ".json", ".jsonl", ".parquet") or "annot" in n]


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
