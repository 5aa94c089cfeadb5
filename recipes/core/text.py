"""Format short texts for messages."""

_FACT, _LINE = 120, 500  # characters


def short(text: object, length: int = 60) -> str:
    """Return `text` as a string, cut to `length` characters with an ellipsis."""
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def described(name: str, *facts: object) -> str:
    """Return a `repr`: a class name and some facts, on one line of at most 500 characters.

    Args:
        name: Name of the class.
        *facts: Texts about the object; empty texts are omitted, long texts are shortened.

    >>> described("Audit", "3 findings", "")
    'Audit(3 findings)'
    """
    shown = (short(" ".join(str(fact).split()), _FACT) for fact in facts if fact is not None)
    return short(f"{name}({', '.join(filter(None, shown))}", _LINE - 1) + ")"


def counted(count: int, noun: str, several: str = "") -> str:
    """Return "1 image" or "1,204 images"; `several` is the irregular plural of a noun."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def percent(share: float, interval: tuple[float, float] | None = None) -> str:
    """Return a share as "92.2 %", or with its interval as "92.2 % (86.8 to 95.5)"."""
    ends = " ({:.1f} to {:.1f})".format(*(100 * end for end in interval)) if interval else ""
    return f"{100 * share:.1f} %{ends}"
