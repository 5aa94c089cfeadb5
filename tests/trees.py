"""Folders of images for tests: as the names alone, and on disk."""

import os
from pathlib import Path

from makers import jpeg, picture

from recipes.data.folders.rules import recognise
from recipes.data.folders.tree import SYSTEM, Folder

# A tree is a dict: a number stands for a folder of so many images, a list for a folder of these files, "" for a file.
PETS = {"cats": 4, "dogs": 5}


def tree(spec, name="photos") -> Folder:
    """The tree that `scan` would find, without any file."""
    if isinstance(spec, int):
        return Folder(name, images=tuple(f"{i}.jpg" for i in range(spec)))
    if isinstance(spec, list):
        images = [file for file in spec if file.endswith((".jpg", ".png"))]
        heic = {file: "HEIC" for file in spec if file.endswith(".heic")}
        others = [file for file in spec if file not in images and file not in heic]
        return Folder(name, images=tuple(images), others=tuple(others), unsupported=heic)
    folders = [tree(inner, key) for key, inner in sorted(spec.items()) if inner != ""]
    folders = [Folder(f.name, problem=SYSTEM) if f.name in ("__MACOSX", "@eaDir") else f for f in folders]
    return Folder(name, tuple(folders), others=tuple(sorted(key for key, inner in spec.items() if inner == "")))


def build(root: Path, spec, seed: int = 0) -> Path:
    """The tree on disk, every image another one."""
    root.mkdir(parents=True, exist_ok=True)
    if isinstance(spec, int):
        spec = [f"{i}.jpg" for i in range(spec)]
    for i, name in enumerate(spec):
        inner = spec[name] if isinstance(spec, dict) else ""
        if inner != "":
            build(root / name, inner, seed * 31 + i + 1)
        elif name.endswith((".jpg", ".png")):
            (root / name).write_bytes(jpeg(picture((200, 50, 40), seed * 1000 + i, (16, 16))))
        else:
            (root / name).write_text("x")
    return root


def read(spec, class_names=None):
    return recognise(tree(spec), "photos", class_names)


def where(layout) -> dict:
    """{split: {class: its folder}}; of several folders, all."""
    shown = lambda places: places[0] if len(places) == 1 else places  # noqa: E731
    return {part.split: {name: shown(p) for name, p in part.classes.items()} for part in layout.parts}


def counts(splits) -> dict:
    return {name: dict(zip(data.class_names, data.counts.tolist(), strict=True)) for name, data in splits.given.items()}


def found(findings) -> dict[str, list[str]]:
    return {finding.kind: [os.path.basename(file) for file in finding.files] for finding in findings}
