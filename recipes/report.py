"""One self-contained HTML page about a run: what was done and why, and what came out."""

import io
from pathlib import Path

from recipes.audit import printable
from recipes.errors import OutputError
from recipes.result import Result

_TEMPLATE = "report.html.jinja"


def write(result: Result, path) -> None:
    """Write the page: headline, plan, ledger, probe, curves, classes, audit, command. It needs no network.

    Raises: OutputError when `path` cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "assets"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(_TEMPLATE).render(
        result=result,
        headline=result.test or result.validation,
        headline_split="test" if result.test else "validation",
        curves=_curves(result.history),
        gains=_gains(result.ledger),
        table=result.table,
        rows=_class_rows(result),
    )
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(printable(page), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"the report cannot be written to {path}: {error.strerror}") from error


def _class_rows(result: Result) -> list[dict]:
    """Per class: images, recall, precision, and what it was most often taken for."""
    judged = result.test or result.validation
    if judged is None:  # an ensemble without validation images
        return []
    confusion, rows = judged.confusion, []
    for i, name in enumerate(result.class_names):
        images, taken = sum(confusion[i]), sum(row[i] for row in confusion)
        wrong = sorted(((n, j) for j, n in enumerate(confusion[i]) if j != i and n), reverse=True)[:3]
        rows.append({
            "name": name, "images": images,
            "recall": confusion[i][i] / images if images else None,
            "precision": confusion[i][i] / taken if taken else None,
            "mistaken": ", ".join(f"{result.class_names[j]} ({n})" for n, j in wrong),
        })  # fmt: skip
    return rows


def _curves(history: dict[str, list[float]]) -> str:
    """Loss and accuracy over the epochs as inline SVG; empty where nothing was trained by gradient steps."""
    if not history.get("val_loss"):
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label in ((metric, "training"), (f"val_{metric}", "validation")):
            axes.plot(range(1, len(history[key]) + 1), history[key], label=label, marker=".")
        axes.set(xlabel="epoch", ylabel=metric)
        axes.legend()
        axes.grid(alpha=0.3)
    return _svg(figure)


def _gains(ledger) -> str:
    """The ledger's gains with their intervals as inline SVG; empty where nothing was compared."""
    rows = [row for row in reversed(ledger) if row.gain is not None]
    if not rows:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for at, row in enumerate(rows):
        low, high = (100 * end for end in row.interval)
        colour = "tab:blue" if row.kept else "tab:gray"
        axes.plot([low, high], [at, at], color=colour, linewidth=2)
        axes.plot(100 * row.gain, at, "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.trick for row in rows])
    axes.set(
        xlabel="points of accuracy gained, 95 % interval; grey: off",
        ylim=(-0.6, len(rows) - 0.4),
    )
    axes.grid(axis="x", alpha=0.3)
    return _svg(figure)


def _svg(figure) -> str:
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.hashsalt": "recipes"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue().split("?>", 1)[-1].split('svg11.dtd">', 1)[-1]
