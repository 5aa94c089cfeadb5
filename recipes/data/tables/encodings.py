"""Decode the text of a table in the encoding that the user names or that its bytes suggest."""

import codecs
import re

from recipes.data.tables.names import override
from recipes.errors import DataError

_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_OTHER_FORMATS = {  # formats by their first bytes
    b"PK\x03\x04": "an Excel workbook or another ZIP archive", b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed by gzip", b"PAR1": "a Parquet file", b"SQLite format 3": "a database",
    b"%PDF": "a PDF", b"{\\rtf": "a document in RTF",
}  # fmt: skip
_JSON = re.compile(rb"""\s*[\[{]\s*["\[{]""")
_LETTER = "A-Za-zªºÀ-ÖØ-öø-ÿ"  # letters of Latin-1; those that Windows-1252 adds are rare, except œ
_EDGE = "œŒµ’‘“”„«»‹›…–—™©®°²³¹¼½¾·¿¡"  # characters that may stand beside a letter
_SIGN = rf"[^\x00-\x7f{_LETTER}{_EDGE}]"  # characters that must not stand beside a letter
_IMPLAUSIBLE = re.compile(
    rf"[À-ÖØ-öø-ÿ]{{3}}|(?<![{_LETTER}])[À-ÖØ-öø-ÿ]{{2}}(?![{_LETTER}])"  # Cyrillic, Greek, Hebrew, Chinese, Korean
    rf"|{_SIGN}(?=[{_LETTER}]|[^\x00-\x7f])|(?<=[^\x00-\x40]){_SIGN}|[°²³¹¼½¾·¿¡©®]{{2}}"  # Japanese, Polish
    rf"|(?<=[{_LETTER}])[^\x00-\x7f{_LETTER}œŒ’·–](?=[{_LETTER}])"  # Mac Roman, damaged UTF-8
    rf"|(?<=[a-z])–(?=[a-z])|(?<![A-Za-z0-9 ])’(?=[{_LETTER}])|[”…™®²³](?=[{_LETTER}])|(?<=[a-zß-öø-ÿ])[À-ÖØ-Þ]"
)
_EXPECTED = 'such as "cp1251", "shift_jis", "gb18030" or "mac_roman"'


def decoded(content: bytes, table: str, encoding: str | None = None) -> tuple[str, str]:
    """Return the text of a table, without a byte order mark, and the name of its encoding.

    Args:
        content: The bytes of the file.
        table: The name of the table in errors.
        encoding: The encoding that the user names. None takes that of the byte order mark, otherwise UTF-8, otherwise
            Windows-1252.

    Raises:
        DataError: If the file has another format, or is not valid in the encoding. Text that is not UTF-8 is also
            rejected if it would have implausible words such as "Êîøêà" in Windows-1252.
    """
    if encoding is None:
        other = next((name for start, name in _OTHER_FORMATS.items() if content.startswith(start)), None)
        if other or _JSON.match(content):
            raise DataError(
                f"{table} is {other or 'JSON'}; expected a table of text: export the table as CSV in UTF-8",
                code="table.format", table=table, format=other or "JSON",
            )  # fmt: skip
        encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if encoding is not None:
        return _in(encoding, content, table), encoding
    option = f"save the table as UTF-8, or name its encoding: {override('encoding', 'NAME')} ({_EXPECTED})"
    try:
        text, name = content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        try:
            text, name = content.decode("cp1252"), "cp1252"
        except UnicodeDecodeError:
            raise DataError(
                f"{table} is neither utf-8 nor cp1252 ({reason}); {option}",
                code="table.encoding", table=table, encodings=("utf-8", "cp1252"),
            ) from None  # fmt: skip
        if strange := _IMPLAUSIBLE.search(text):
            shown = text[max(0, strange.start() - 12) : strange.end() + 12]
            raise DataError(
                f"{table} is not utf-8 ({reason}), and read as cp1252 (Windows-1252) it has {shown!r}, which is "
                f"implausible; {option}",
                code="table.encoding", table=table, encodings=("utf-8", "cp1252"),
            ) from None  # fmt: skip
    if "\0" in text:
        raise DataError(
            f"{table} has NUL characters, so it is either not text or is UTF-16 without a byte order mark; {option}",
            code="table.encoding", table=table, encodings=(name,),
        )  # fmt: skip
    return text, name


def _in(encoding: str, content: bytes, table: str) -> str:
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise DataError(
            f"`encoding` must be a known name, {_EXPECTED}, got {encoding!r}",
            code="table.unknown_encoding", value=encoding,
        ) from None  # fmt: skip
    except UnicodeError as error:
        raise DataError(
            f"{table} is not {encoding} ({error}); name another encoding, {override('encoding', 'NAME')}, or save "
            "the table as UTF-8",
            code="table.encoding", table=table, encodings=(encoding,),
        ) from None  # fmt: skip
