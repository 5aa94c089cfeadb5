"""Make parts of the answers of several commands."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from recipes.cli.command import Answer

if TYPE_CHECKING:
    from recipes import Evaluation, Result


def run_answer(result: "Result", output: Path) -> Answer:
    """Write the report of a saved run, and return the command's answer about the run."""
    report = output / "report.html"
    result.report(report)
    headline, *summary = result.summary(saved_in=output).splitlines()
    data: dict[str, Any] = {
        "run": output, "report": report, "accuracy": result.accuracy, "class_names": result.class_names,
        "backbone": result.backbone, "recipe": result.recipe.name, "reasons": result.recipe.reasons,
        "validation": evaluation_data(result.validation), "test": evaluation_data(result.test),
        "excluded": sorted(result.audit.excluded), "suspects": [each.file for each in result.suspects],
        "seconds": result.seconds, "versions": result.versions,
    }  # fmt: skip
    run = quote(str(output))
    return Answer(
        headline,
        "\n".join(summary[:-1]),
        f"\n{result}\n",
        next=(f"open {report}", f"recipes predict {run} FOLDER", f"recipes export {run} serving"),
        data=data,
    )


def evaluation_data(evaluation: "Evaluation | None") -> dict[str, Any] | None:
    """Return an evaluation as values for JSON."""
    if evaluation is None:
        return None
    names = ("accuracy", "interval", "macro_accuracy", "nll", "ece", "n")
    return {name: getattr(evaluation, name) for name in names}


def table(content: Table) -> str:
    """Return a table as text."""
    console = Console(width=110)
    with console.capture() as capture:
        console.print(content)
    return capture.get().rstrip()
