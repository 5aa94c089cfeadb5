"""Short texts for messages."""


def short(text: object, length: int = 60) -> str:
    """Return `text` as a string, cut to `length` characters with an ellipsis."""
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"
