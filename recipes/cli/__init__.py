"""The command line: each command is one call of the Python interface."""

import logging
import os
import signal
import sys
import warnings
from types import FrameType
from typing import TextIO

import typer
from rich.console import Console

import augment
import recipes
from recipes.cli import data as cli_data
from recipes.cli import run as cli_run
from recipes.cli import train as cli_train
from recipes.core.output import discard_unwritable, printable, safe_output

app = typer.Typer(
    help="Finetune an ImageNet-pretrained network on your own photos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (  # in the order of --help
    cli_train.finetune,
    cli_train.pretrain,
    cli_data.audit,
    cli_train.probe,
    cli_train.rank,
    cli_run.evaluate,
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
for _command in _COMMANDS:
    app.command(_command.__name__.replace("_", "-"))(_command)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """Print a warning of `recipes` as one sentence, and others as Python does, with their line of code."""
    if issubclass(category, UserWarning) and f"{os.sep}recipes{os.sep}" in filename:
        print(f"warning: {printable(str(message))}", file=file or sys.stderr)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Run the command line.

    The exit code is 0 for success, 2 for wrong use or wrong data, and 130 or 143 after a signal.
    """
    try:
        _run()
    finally:
        discard_unwritable()


@safe_output()
def _run() -> None:
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    # TensorFlow warns of retracing because a search or an ensemble has several networks.
    logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())
    try:
        app()
    except recipes.PeerLost as error:
        print(f"{error}. Restarting this worker automatically.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except (recipes.RecipesError, augment.PolicyError) as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"error: {printable(str(error))}", style="bold red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
