"""One kind of oddity that an audit met."""

from dataclasses import dataclass

from recipes.output import printable


@dataclass(frozen=True)
class Finding:
    """One kind of oddity: the files (or classes) that show it and what `finetune` does about them."""

    kind: str
    files: tuple[str, ...]
    action: str
    excluded: bool = False

    def __str__(self) -> str:
        shown = ", ".join(self.files[:3]) + (f" and {len(self.files) - 3} more" if len(self.files) > 3 else "")
        return printable(f"{self.kind} ({len(self.files)}): {shown}: {self.action}")
