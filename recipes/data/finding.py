"""One kind of oddity that an audit met."""

from dataclasses import dataclass

from recipes.core.output import printable


@dataclass(frozen=True)
class Finding:
    """One kind of oddity: the files (or classes) that show it and what `finetune` does about them.

    details: one text per file, such as the decoder's message or the file that it repeats; empty where there are none.
    """

    kind: str
    files: tuple[str, ...]
    action: str
    excluded: bool = False
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.files[:3]) + (f" and {len(self.files) - 3} more" if len(self.files) > 3 else "")
        return printable(f"{self.kind} ({len(self.files)}): {shown}: {self.action}")
