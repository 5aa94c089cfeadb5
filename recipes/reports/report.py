"""One self-contained HTML page about a run: what was done and why, what came out, and what to look at."""

import re

import numpy as np

from recipes.core.text import short
from recipes.data.images import ImageData
from recipes.evaluation.predictions import Judged
from recipes.reports import photos as pictures
from recipes.reports import svg as figures
from recipes.reports.command_line import commands, configuration, members_of
from recipes.reports.page import filled, save
from recipes.runs.record import Record

_PHOTOS, _ROWS, _FILES, _CLASSES, _MATRIX = 24, 100, 30, 1000, 20  # at most so many, so that any page stays small
_HEATED = 3  # right and wrong images each


def write(result: Record, path) -> None:
    """Write the page; it needs no network and stays under 5 MB. What is left out for that is told in it.

    Raises: OutputError when `path` cannot be written.
    """
    save(render(result), path)


def render(result: Record) -> str:
    """The page as HTML."""
    judged, held_out = result.judged, result.held_out
    if judged is None or (held_out is not None and len(held_out) != len(judged.labels)):
        held_out = None
    headline = result.test or result.validation
    chosen = next(((row.epoch, row.accuracy) for row in result.ledger if row.epoch), None)
    return filled(
        "report.html.jinja", result=result, headline=headline, split="test" if result.test else "validation",
        grid=_grid(result.table), images=_images(result), curves=figures.curves(result.history, chosen),
        stages=_stages(result), ledger=_ledger(result), confusion=headline and _confusion(result, headline.confusion),
        classes=headline and _class_rows(result, headline.confusion), judged=judged,
        reliability=judged and figures.reliability(judged.reliability()),
        mistakes=judged and _mistakes(result, judged, held_out), suspects=_suspects(result),
        looked=_looked(result, judged, held_out), varied=_varied(result, held_out), files=_FILES,
        commands=commands(result.command, result.backbone), configuration=configuration(result.recipe),
    )  # fmt: skip


def _grid(table: str) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(how much data, [(what to do, whether that is this dataset)]) of the lecture's table; empty where it has none."""
    rows = [(line[:14].strip(), re.split(r" {2,}", line[14:].strip())) for line in table.splitlines()[1:]]
    if [len(cells) for _, cells in rows] != [2, 2]:
        return []
    return [(title, [(cell.removeprefix("▶ "), cell.startswith("▶ ")) for cell in cells]) for title, cells in rows]


def _images(result: Record) -> dict[str, int]:
    prints = result.audit.fingerprints
    if members_of(result.command):  # whose splits overlap
        return {"trained on or chosen by": len({*prints.get("train", ()), *prints.get("validation", ())})}
    counts = {split: len(each) for split, each in prints.items()}
    if result.judged and "validation" not in counts and "train" in counts:
        counts["train"] -= len(result.judged.labels)
        counts["validation, split off the training images"] = len(result.judged.labels)
    return counts


def _stages(result: Record) -> list[dict]:
    stages = result.probe.stages if result.probe else ()
    ends = [end for stage in stages for end in stage.interval]
    return [
        {"stage": stage, "best": stage is result.probe.best,
         "figure": figures.interval(stage.interval[0], stage.accuracy, stage.interval[1], (min(ends), max(ends)))}
        for stage in stages
    ]  # fmt: skip


def _ledger(result: Record) -> list[dict]:
    ends = [end for row in result.ledger if row.interval for end in row.interval]
    axis = (min([0.0, *ends]), max([0.0, *ends]))
    return [
        {"row": row, "figure": row.interval and figures.interval(row.interval[0], row.gain, row.interval[1], axis,
                                                                 on=row.kept)}
        for row in result.ledger
    ]  # fmt: skip


def _confusion(result: Record, confusion) -> dict:
    """The matrix of the classes with the most mistakes, and of many classes the commonest mistakes too."""
    matrix = np.array(confusion)
    wrong = matrix - np.diag(np.diag(matrix))
    shown = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_MATRIX])
    part, totals = matrix[np.ix_(shown, shown)], np.maximum(1, matrix.sum(1))[shown]
    places = np.argsort(-wrong, axis=None, kind="stable")[:_MATRIX] if len(matrix) > _MATRIX else []
    pairs = [divmod(int(place), len(matrix)) for place in places]
    return {
        "names": [result.class_names[i] for i in shown],
        "rows": [[(int(n), n / total) for n in row] for row, total in zip(part, totals, strict=True)],
        "left_out": len(matrix) - len(shown),
        "pairs": [(result.class_names[i], result.class_names[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]],
    }


def _class_rows(result: Record, confusion) -> list[dict]:
    """Per class: images, recall, precision, and what it was most often taken for; the least recalled where too many."""
    matrix = np.array(confusion)
    images, taken, right = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    recall = np.where(images > 0, right / np.maximum(1, images), np.inf)
    rows = []
    for i in np.sort(np.argsort(recall, kind="stable")[:_CLASSES]):
        others = [j for j in np.argsort(-matrix[i], kind="stable")[:4] if j != i and matrix[i, j]][:3]
        rows.append({
            "name": result.class_names[i], "images": int(images[i]),
            "recall": float(recall[i]) if images[i] else None,
            "precision": float(right[i] / taken[i]) if taken[i] else None,
            "mistaken": ", ".join(f"{short(result.class_names[j], 40)} ({matrix[i, j]})" for j in others),
        })  # fmt: skip
    return rows


def _mistakes(result: Record, judged: Judged, held_out: ImageData | None) -> dict:
    wrong = judged.mistakes()
    cards = [
        {"photo": pictures.photo(held_out, i), "file": held_out.names[i] if held_out else "",
         "label": result.class_names[judged.labels[i]], "named": result.class_names[judged.predicted[i]],
         "confidence": float(judged.confidence[i]), "own": float(judged.probabilities[i, judged.labels[i]])}
        for i in wrong[:_PHOTOS]
    ]  # fmt: skip
    return {"cards": cards, "count": len(wrong), "missing": sum(card["photo"] is None for card in cards)}


def _suspects(result: Record) -> dict:
    rows = [
        {"suspect": suspect, "photo": pictures.photo_called(suspect.file, result.held_out) if i < _PHOTOS else None}
        for i, suspect in enumerate(result.suspects[:_ROWS])
    ]
    first = rows[:_PHOTOS]
    return {"rows": rows, "count": len(result.suspects), "photos": len(first),
            "missing": sum(row["photo"] is None for row in first)}  # fmt: skip


def _looked(result: Record, judged: Judged | None, held_out: ImageData | None) -> dict | None:
    """Grad-CAM of the worst mistakes and of right images of several classes; None where no image is at hand."""
    if held_out is None:
        return None
    wrong, right = judged.mistakes()[:_PHOTOS], np.flatnonzero(judged.predicted == judged.labels)
    right = right[np.unique(judged.labels[right], return_index=True)[1]]  # one of each class
    chosen = [i for some in (wrong, right[:_PHOTOS]) for i in pictures.at_hand(held_out, some)[:_HEATED]]
    if not chosen:
        return None
    data, found = held_out.subset(chosen), result.probabilities(held_out.subset(chosen))
    asked = [list(dict.fromkeys((int(judged.predicted[i]), int(judged.labels[i])))) for i in chosen]
    rows, why = pictures.heat_maps(result, data, asked)
    cards = [
        {"crop": row[0], "label": result.class_names[data.labels[i]],
         "maps": [(url, result.class_names[c], float(found[i, c])) for url, c in zip(row[1:], asked[i], strict=True)]}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return {"cards": cards, "why": why}


def _varied(result: Record, held_out: ImageData | None) -> list:
    return pictures.variations(held_out, result.recipe.policy) if held_out is not None and result.history else []
