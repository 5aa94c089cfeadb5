"""Texts for people: shortened, and without control characters."""


def short(text, length: int = 60) -> str:
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"
