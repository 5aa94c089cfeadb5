"""Render log records as text, and make standard streams whose failures never end a run.

The library reports through the logger "recipes" and its children. While a public function runs, `safe_output` renders
their records on the terminal or in a notebook.
"""

import codecs
import html
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from recipes.core.progress import watched

REPLACE = "recipes.replace"  # name of the codec error handler below
_PLAIN = {"×": "x", "±": "+/-", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "▶": ">", "·": "*", "√": "sqrt ",
          "²": "^2", "‖": "||", "━": "=", "╌": "-", "‘": "'", "’": "'", "“": '"', "”": '"'}  # fmt: skip


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Replace each character by a plain one of the same meaning, or by an escape. This is a codec error handler."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c) or _escaped(c) for c in error.object[error.start : error.end]), error.end


codecs.register_error(REPLACE, _replacement)


def _escaped(character: str) -> str:
    r"""Return the escape of a character: \uNNNN, or \xNN for a byte of a file name that is not UTF-8."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode("ascii")


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Return `text` with every character that `encoding` lacks replaced.

    In UTF-8, these are the bytes of file names that are not UTF-8; they become \xNN.
    """
    return text.encode(encoding, REPLACE).decode(encoding)


def shortened(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """Return the first names and the number of the remaining names.

    >>> shortened(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


class SafeStream:
    """A text stream whose `write` and `flush` never raise.

    Characters that the stream's encoding lacks are replaced. Text that cannot be written is dropped. That happens if
    the reader of a pipe has closed it, the disk is full, the stream is closed, or there is no stream (`None`, as under
    pythonw).

    Args:
        stream: The stream to write to. It only needs the method `write`.
    """

    def __init__(self, stream: Any) -> None:  # Any: a stream of the caller may only have `write`
        self._stream, self._warned = stream, False

    @property
    def encoding(self) -> str:
        """Encoding of the stream; UTF-8 if the stream has none."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write `text` and return its length, even if the text is dropped."""
        if not isinstance(text, str):
            raise TypeError(f"write() takes a str, got {type(text).__name__}")
        if self._stream is not None:
            try:
                self._write(text)
            except Exception as error:  # a stream of the caller may raise any exception; the run continues
                self._warn(error)
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self._write_replaced(text, getattr(self._stream, "encoding", None), error.encoding)

    def _write_replaced(self, text: str, *encodings) -> None:
        """Write the text in the first of `encodings` that the stream accepts, otherwise in ASCII."""
        for encoding in encodings:
            try:
                self._stream.write(printable(text, encoding))
                return
            except (UnicodeError, LookupError, TypeError):  # the stream names a wrong encoding or none
                continue
        self._stream.write(printable(text, "ascii"))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of the `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream if it has a buffer."""
        if hasattr(self._stream, "flush"):
            try:
                self._stream.flush()
            except Exception as error:
                self._warn(error)

    def close(self) -> None:
        """Do nothing: the stream belongs to the caller, and log handlers close their streams when they end."""

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        try:
            return bool(self._stream.isatty())
        except (AttributeError, ValueError):  # the stream has no such method, is missing or closed
            return False

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # not set yet while `copy` makes a copy
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _warn(self, error: Exception) -> None:
        """Log the first failure, unless the reader of a pipe has closed it, which is normal."""
        if not self._warned and not isinstance(error, BrokenPipeError):
            self._warned = True
            logging.getLogger("recipes").warning(
                "Some output cannot be written and is lost; the run continues: %s: %s", type(error).__name__, error
            )


class TerminalRenderer(logging.Handler):
    """Prints log records without a prefix.

    Args:
        all_on_stderr: Whether to print all records on stderr, so that stdout only carries results. Otherwise only
            warnings and errors go to stderr.
    """

    def __init__(self, all_on_stderr: bool = False) -> None:
        super().__init__()
        self._on_stderr = logging.NOTSET if all_on_stderr else logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record once: it does not reach the root logger if a handler there also prints to the terminal."""
        logging.getLogger("recipes").propagate = not any(map(_prints, logging.getLogger().handlers))
        self.show(self.format(record), sys.stderr if record.levelno >= self._on_stderr else sys.stdout)

    def show(self, text: str, stream: Any) -> None:
        """Print the text of a record."""
        print(text, file=stream, flush=True)


def _prints(handler: logging.Handler) -> bool:
    """Return whether a handler writes to the terminal, as the handler of `logging.basicConfig` does."""
    if type(handler) is not logging.StreamHandler:
        return False
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return any(handler.stream in (stream, getattr(stream, "_stream", None)) for stream in streams)


class NotebookRenderer(TerminalRenderer):
    """Shows texts of several lines, such as tables, in a scrolling block, so that their columns stay aligned."""

    def show(self, text: str, stream: Any) -> None:
        """Display the text of a record."""
        if "\n" not in text:
            super().show(text, stream)
            return
        from IPython.display import display  # pyright: ignore[reportMissingImports]  # only notebooks have it

        block = f'<pre style="white-space: pre; overflow-x: auto">{html.escape(text)}</pre>'
        display({"text/plain": text, "text/html": block}, raw=True)


def renderer(all_on_stderr: bool = False) -> TerminalRenderer:
    """Return the renderer for the place where this process prints."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    in_notebook = shell is not None and hasattr(shell, "kernel")
    return (NotebookRenderer if in_notebook else TerminalRenderer)(all_on_stderr)


_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)  # the lowest level that each verbosity prints
_verbosity = 2


@contextmanager
def safe_output(verbose: int | None = None, *, all_on_stderr: bool = False) -> Iterator[None]:
    """Render the log, and make `sys.stdout` and `sys.stderr` safe streams, inside a block or a decorated function.

    Every public function that reports or shows progress uses this decorator. Log records, the progress display, and
    prints of the caller's callbacks all go through `sys.stdout` and `sys.stderr`. A stream with strict errors stays
    lenient afterwards, so that `print(result)` does not fail at the end of a run.

    Args:
        verbose: 0: print only warnings and errors; 1: phases and results, too, with a progress display on a terminal;
            2: also every decision and measurement. None takes the verbosity of the enclosing call, or 1. A call inside
            a quieter call is equally quiet. Handlers that the caller has attached always get the records; records of
            verbosity 2 only exist if it is requested.
        all_on_stderr: Whether to print everything on stderr.
    """
    with safe_streams(), _rendered_log(verbose, all_on_stderr):
        yield


@contextmanager
def _rendered_log(verbose: int | None, all_on_stderr: bool) -> Iterator[None]:
    global _verbosity
    logger, before = logging.getLogger("recipes"), _verbosity
    level, propagate = logger.level, logger.propagate
    handler = next((handler for handler in logger.handlers if isinstance(handler, TerminalRenderer)), None)
    outermost = handler is None
    if verbose is None:
        verbose = 1 if outermost else before
    _verbosity = int(verbose) if outermost else min(int(verbose), before)
    if handler is None:
        handler = renderer(all_on_stderr)
        logger.addHandler(handler)
    shown = handler.level
    handler.setLevel(_LEVELS[_verbosity])
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO, _LEVELS[_verbosity]))
    try:
        with watched(_verbosity > 0):
            yield
    finally:
        _verbosity, logger.propagate = before, propagate
        logger.setLevel(level)
        handler.setLevel(shown)
        if outermost:
            logger.removeHandler(handler)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make `sys.stdout` and `sys.stderr` safe streams for the duration, see `safe_output`; also a decorator."""
    before = sys.stdout, sys.stderr
    safe = [stream if isinstance(stream, SafeStream) else SafeStream(_lenient(stream)) for stream in before]
    sys.stdout, sys.stderr = safe
    try:
        yield
    finally:
        if sys.stdout is safe[0]:
            sys.stdout = before[0]
        if sys.stderr is safe[1]:
            sys.stderr = before[1]


def _lenient(stream: Any) -> Any:
    """Return `stream`, changed to replace characters that its encoding lacks if it raised on them."""
    if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
        try:
            stream.reconfigure(errors=REPLACE)
        except (OSError, ValueError):
            return stream  # the stream is closed or has no reader: `SafeStream` drops the text
    return stream


def discard_unwritable() -> None:
    """Redirect standard streams that cannot be written to the null device.

    Python flushes them when it exits; if that failed, the exit code would be 120.
    """
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        except ValueError:  # already closed
            continue
