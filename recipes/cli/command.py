"""Define what all commands share: answers, the options -v, -q and --json, and a quiet start of TensorFlow."""

import functools
import inspect
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from recipes.core.output import printable, safe_output
from recipes.core.progress import phase

VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print every decision and measurement, and messages of TensorFlow.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result, warnings and errors.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on the standard output, and everything else on stderr.")
]
_COMMON = {"verbose": VerboseOption, "quiet": QuietOption, "json": JsonOption}


@dataclass(frozen=True)
class Answer:
    """Hold the result of a command.

    Attributes:
        headline: The result in one line.
        summary: A few more lines about the result.
        details: The complete result, printed with -v.
        next: Commands that are useful next.
        data: The result for programs, as JSON values.
    """

    headline: str
    summary: str = ""
    details: str = ""
    next: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def text(self, verbose: bool = False, quiet: bool = False) -> str:
        """Return the answer as text."""
        steps = [f"next:  {step}" for step in self.next]
        parts = [self.headline] if quiet else [self.headline, self.summary, self.details * verbose, "\n".join(steps)]
        return "\n".join(part for part in parts if part)

    def json(self) -> str:
        """Return the data as JSON; NaN and infinite numbers become null."""
        return json.dumps(_json(self.data), indent=2, ensure_ascii=False)


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    if hasattr(value, "tolist"):  # a NumPy array or number
        return _json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return printable(value)
    return value if value is None or isinstance(value, int | bool) else printable(str(value))


def command(function: Callable[..., Answer | None]) -> Callable[..., None]:
    """Return a command that runs `function` and prints its answer, with the options that all commands have.

    The parameter `verbosity` of a function, if any, gets 0, 1 or 2, as in `recipes.finetune`. Messages are printed on
    the error stream. A function without an answer, such as a server, prints its messages on the standard output.
    """
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.name != "verbosity"]

    @functools.wraps(function)
    def run(*, verbose: bool, quiet: bool, json: bool, **arguments: Any) -> None:
        if verbose and quiet:
            raise typer.BadParameter("--quiet and --verbose cannot be used together; give at most one of them")
        verbosity = 2 if verbose else 0 if quiet else 1
        if "verbosity" in signature.parameters:
            arguments["verbosity"] = verbosity
        with safe_output(verbosity, all_on_stderr=signature.return_annotation is not None):
            with phase(function.__name__):
                with phase("loading TensorFlow"):
                    start_tensorflow(verbose)
                answer = function(**arguments)
            if answer is not None:
                print(answer.json() if json else answer.text(verbose, quiet), flush=True)

    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _COMMON.items()
    ]
    vars(run)["__signature__"] = signature.replace(parameters=[*own, *common], return_annotation=None)
    run.__annotations__ = {each.name: each.annotation for each in own} | _COMMON
    return run


def start_tensorflow(verbose: bool) -> None:
    """Import TensorFlow and Keras; unless `verbose`, suppress their messages."""
    if verbose:
        return  # the command imports both
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _hidden_errors():
        import keras
        import tensorflow  # noqa: F401

        keras.backend.backend()


@contextmanager
def _hidden_errors() -> Iterator[None]:
    """Discard this process's output on its error stream, unless an exception is raised.

    TensorFlow's libraries write to that stream before their log level is read.
    """
    try:
        stream = os.dup(2)
    except OSError:  # the process has no error stream
        yield
        return
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(stream, 2)
            os.close(stream)
            if failed:
                hidden.seek(0)
                sys.stderr.write(hidden.read().decode("utf-8", "replace"))
