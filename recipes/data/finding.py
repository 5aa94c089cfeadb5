"""The findings of an audit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from recipes.core.output import printable, shortened
from recipes.core.text import counted, described


@dataclass(frozen=True)
class Finding:
    """A finding of an audit: the files or classes with one kind of oddity, and what `finetune` does about them.

    Attributes:
        kind: A short name of the oddity.
        files: The files or classes.
        action: Description of what `finetune` does about these files or classes.
        excluded: Whether `finetune` excludes these files.
        details: One text per file, such as the decoder's message, or the name of the file that it duplicates. May be
            empty.
    """

    kind: str
    files: tuple[str, ...]
    action: str
    excluded: bool = False
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return printable(f"{self.kind} ({len(self.files)}): {shortened(self.files, 3)}: {self.action}")

    def __repr__(self) -> str:
        return described("Finding", repr(self.kind), counted(len(self.files), "file"), "excluded" * self.excluded)


@dataclass(frozen=True)
class Unsupported:
    """A picture in a class folder whose format is not supported; `error` is the text for the audit."""

    name: str
    split: str
    class_name: str
    error: str


def not_supported(files: Sequence[Unsupported]) -> Finding:
    """Return the finding for files of unsupported formats, with the number of files of each format and class."""
    variants = Counter(file.error.split(": ")[1].split(";")[0] for file in files)
    labels = Counter(file.class_name for file in files)
    counted = [", ".join(f"{name} ({n})" for name, n in counts.most_common()) for counts in (variants, labels)]
    action = f"excluded ({counted[0]}; classes: {counted[1]}; convert them to JPEG or PNG)"
    names, details = tuple(file.name for file in files), tuple(file.error for file in files)
    return Finding(files[0].error.split(":")[0], names, action, excluded=True, details=details)
