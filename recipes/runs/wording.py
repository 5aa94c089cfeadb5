"""Describe a run: all details, a summary of a few lines, and the card that a notebook shows."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from recipes.auditing.audit import Audit
from recipes.core.card import CardTable, card
from recipes.core.output import shortened
from recipes.core.text import counted, percent, short
from recipes.evaluation.ledger import ledger_table
from recipes.evaluation.per_class import HEADER, left_out, worst
from recipes.planning.recipe import Recipe
from recipes.runs.record import Record

_DECISIVE = {"plan.few_held_out", "plan.few_images", "plan.solved", "plan.no_time"}  # reason codes
_CLASSES = 10  # maximum number of classes in the card
_NOT_EVALUATED = "not evaluated: no images were held out"


def details(record: Record) -> str:
    """Return the plan, the ledger, the accuracy, the findings and the durations of a run."""
    lines = [f"{record.backbone}, {len(record.class_names)} classes: {', '.join(record.class_names[:10])}"]
    lines[0] += ", …" if len(record.class_names) > 10 else ""
    lines += [str(record.table)] if record.table else []
    lines.append(str(record.recipe))
    lines += ["  " + line for line in ledger_table(record.ledger).splitlines()]
    if record.validation:
        lines.append(f"validation: {record.validation}")
    if record.calibration:
        lines.append(f"  {record.calibration}")
    if record.selection:
        lines.append(f"  {record.selection}")
    if record.test:
        lines.append(f"test: {record.test}")
    lines += [f"audit: {finding}" for finding in record.audit.findings]
    if record.suspects:
        lines.append(f"{len(record.suspects)} labels to look at, the most doubtful first:")
        lines += [f"  {suspect}" for suspect in record.suspects[:5]]
    spent = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in record.seconds.items())
    return "\n".join([*lines, f"{sum(record.seconds.values()):.1f} s: {spent}"])


def summary(record: Record, saved_in: str | os.PathLike | None = None) -> str:
    """Return a run in at most eight lines; the first is the accuracy. See `Result.summary`."""
    answer = str(record.headline or _NOT_EVALUATED)
    if saved_in is None:
        more = "details: print(result), or result.report('report.html') for an HTML page"
    else:
        folder = os.fspath(saved_in)
        answer += f", saved in {folder}"
        more = f"details: recipes report {shlex.quote(folder)} report.html"
    facts = (f"{name}: {value}" for name, value in _facts(record) if value)
    return "\n".join([answer, f"{short(record.backbone, 80)}, {_first_line(record.recipe)}", *facts, more])


def result_card(record: Record) -> str:
    """Return the card that a notebook shows."""
    headline = record.headline
    answer = percent(headline.accuracy, headline.interval) if headline else _NOT_EVALUATED
    on = f"accuracy on {counted(headline.images, 'held-out image')}; " if headline else ""
    title = f"{on}{short(record.backbone, 80)}, recipe {record.recipe.name!r}"
    evaluation = record.test or record.validation
    scores = evaluation.per_class if evaluation and evaluation.confusion else ()
    rows = [(scores[i].class_name, *scores[i].cells) for i in worst(scores, _CLASSES)]
    facts = [("training", _first_line(record.recipe).split(", ", 1)[1]), *_facts(record)]
    return card(answer, title, facts, CardTable(HEADER, rows, left_out(scores, _CLASSES)))


def _facts(record: Record) -> list[tuple[str, str]]:
    """Return the (name, value) rows of a summary below the accuracy; rows without content have an empty value."""
    seconds = sum(record.seconds.values())
    return [
        ("why", "" if _reverted(record) else short(_main_reason(record.recipe), 200)),
        ("gain", _gain(record)),
        ("note", _correction(record)),
        ("audit", _excluded(record.audit)),
        ("doubtful labels", _doubtful(record)),
        ("time", f"{seconds:.1f} s, without loading TensorFlow" if seconds else ""),
    ]


def _first_line(recipe: Recipe) -> str:
    return str(recipe).splitlines()[0]


def _main_reason(recipe: Recipe) -> str:
    """Return the reason that decided what is trained, or the first reason if there is none."""
    decisive = (str(reason) for reason in recipe.decisions if reason.code in _DECISIVE)
    return next(decisive, next(iter(recipe.reasons), ""))


def _gain(record: Record) -> str:
    """Return the gain of the gradient steps over the linear classifier as text; empty without gradient steps."""
    row = next((row for row in record.ledger if row.epoch is not None and row.gain is not None), None)
    if row is None or row.gain is None or row.interval is None:
        return ""
    low, high = (100 * end for end in row.interval)
    points = f"{100 * row.gain:+.1f} points ({low:+.1f} to {high:+.1f})"
    if _reverted(record):
        return (
            f"{row.trick} changed the accuracy by {points}, which is no reliable gain, so the linear classifier is kept"
        )
    return f"{row.trick} {points} over the linear classifier, kept"


def _reverted(record: Record) -> bool:
    """Return whether the network was finetuned and the result is nevertheless the linear classifier."""
    row = next((row for row in record.ledger if row.epoch is not None and row.gain is not None), None)
    return row is not None and not row.kept


def _correction(record: Record) -> str:
    """Return how the headline differs from the validation accuracy as text; empty if it does not."""
    if record.test or not record.validation or not record.selection:
        return ""
    many = counted(record.selection.candidates, "candidate")
    plain = percent(record.validation.accuracy)
    if plain == percent(record.selection.accuracy):
        return ""
    return f"{plain} before the correction for selecting the best of {many} by the same images"


def _doubtful(record: Record) -> str:
    if not record.suspects:
        return ""
    return short(f"{counted(len(record.suspects), 'image')}, the most doubtful: {record.suspects[0]}", 200)


def _excluded(audit: Audit) -> str:
    """Return how many files are excluded, by kind, and how many other findings there are."""
    excluded = [finding for finding in audit.findings if finding.excluded]
    others = counted(len(audit.findings) - len(excluded), "other kind of finding", "other kinds of findings")
    if not excluded:
        return others.replace("other ", "") if audit.findings else ""
    names = {finding.kind: shortened([Path(name).name for name in finding.files], 2) for finding in excluded}
    kinds = _joined(f"{kind}: {files}" for kind, files in names.items())
    files = f"{counted(len(audit.excluded), 'file')} excluded ({kinds})"
    return files if len(excluded) == len(audit.findings) else f"{files}, {others}"


def _joined(kinds: Iterable[str]) -> str:
    return short(", ".join(kinds), 120)
