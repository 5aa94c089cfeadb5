"""Define the command line, in which each command is one call of the Python interface.

No module here imports TensorFlow, or anything that does, before a command needs it, so that `--help` is quick.
"""

import os
import signal
import sys
import warnings
from importlib import metadata
from types import FrameType
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from recipes.cli import data as cli_data
from recipes.cli import run as cli_run
from recipes.cli import train as cli_train
from recipes.cli.advice import as_flags
from recipes.cli.command import Answer, command
from recipes.core.output import discard_unwritable, printable, safe_streams
from recipes.errors import PeerLost, RecipesError

_UsageError: Any = typer.BadParameter.__mro__[1]  # Typer does not export this class of all errors of usage

app = typer.Typer(
    help="Finetune an ImageNet-pretrained network on your own photos.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (  # in the order in which --help lists the commands
    cli_train.finetune,
    cli_train.pretrain,
    cli_data.audit,
    cli_train.probe,
    cli_train.rank,
    cli_run.evaluate,
    cli_run.compare,
    cli_train.ensemble,
    cli_train.soup,
    cli_train.ablate,
    cli_train.search,
    cli_run.diagnose,
    cli_run.predict,
    cli_run.export,
    cli_run.serve,
    cli_data.preview,
    cli_data.pack,
    cli_data.input_worker,
    cli_run.report,
)
for _function in _COMMANDS:
    app.command(_function.__name__.replace("_", "-"))(command(_function))


def _print_version(value: bool) -> None:
    if value:
        print(metadata.version("keras-recipes"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Finetune an ImageNet-pretrained network on your own photos."""


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """Print a warning of `recipes` as one sentence, and any other warning as Python does."""
    if issubclass(category, UserWarning) and f"{os.sep}recipes{os.sep}" in filename:
        print(f"warning: {printable(as_flags(str(message), app))}", file=file or sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Run the command line.

    The exit code is 0 for success, 2 for wrong arguments or data, and 130 or 143 after a signal.
    """
    try:
        _run()
    finally:
        discard_unwritable()


@safe_streams()
def _run() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            _print_error(error.format_message(), "usage")
            print(f"{error.ctx.command_path if error.ctx else 'recipes'} --help lists the options", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except PeerLost as error:
        print(f"{error}. Restarting this worker automatically.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except ValueError as error:
        if not isinstance(error, _mistakes()):
            raise
        _print_error(str(error), getattr(error, "code", "policy"))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _mistakes() -> tuple[type[ValueError], ...]:
    """Return the classes of errors that a user can correct, without importing the package `augment`."""
    augment = sys.modules.get("recipes.augment")
    return (RecipesError, augment.PolicyError) if augment else (RecipesError,)


def _print_error(message: str, code: str) -> None:
    """Print an error as text, and with --json also as JSON."""
    message = printable(as_flags(message, app))
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"error: {message}", style="bold red", markup=False, highlight=False)
    if "--json" in sys.argv:
        print(Answer("", data={"error": {"code": code, "message": message}}).json(), flush=True)
