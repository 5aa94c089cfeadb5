"""Write a self-contained HTML page about a run: its plan, results and mistakes, and how to reproduce it."""

import os
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from recipes.core.text import short
from recipes.data.images import ImageData
from recipes.errors import BackboneError
from recipes.evaluation.ledger import Gain
from recipes.evaluation.predictions import Judged
from recipes.reports import photos, svg
from recipes.reports.command_line import commands, configuration, members_of
from recipes.reports.page import filled, save
from recipes.runs.record import Record

_PHOTOS, _ROWS, _FILES, _CLASSES, _MATRIX = 24, 100, 30, 1000, 20  # limits that keep pages small
_HEAT_MAPS = 3  # number of correct images, and of wrong images


def write(result: Record, path: str | os.PathLike) -> None:
    """Write the page, which needs no network, stays under 5 MB, and says what was left out.

    Raises:
        OutputError: If `path` cannot be written.
    """
    save(render(result), path)


def render(result: Record) -> str:
    """Return the page as HTML."""
    judged, held_out = result.judged, result.held_out
    if judged is None or (held_out is not None and len(held_out) != len(judged.labels)):
        held_out = None
    headline = result.test or result.validation
    chosen = next(((row.epoch, row.accuracy) for row in result.ledger if row.epoch and row.accuracy is not None), None)
    return filled(
        "report.html.jinja", result=result, headline=headline, split="test" if result.test else "validation",
        images=_images(result), curves=svg.curves(result.history, chosen),
        stages=_stages(result), ledger=_ledger(result), confusion=headline and _confusion(result, headline.confusion),
        classes=headline and _class_rows(result, headline.confusion), judged=judged,
        reliability=judged and svg.reliability(judged.reliability()),
        mistakes=judged and _mistakes(result, judged, held_out), suspects=_suspects(result),
        heat_maps=_heat_maps(result, judged, held_out), augmented=_augmented(result, held_out), files=_FILES,
        commands=commands(result.command, result.backbone), configuration=configuration(result.recipe),
    )  # fmt: skip


def _images(result: Record) -> dict[str, int]:
    prints = result.audit.fingerprints
    if members_of(result.command):  # the splits of an ensemble's members overlap
        return {"for training or model selection": len({*prints.get("train", ()), *prints.get("validation", ())})}
    counts = {split: len(each) for split, each in prints.items()}
    if result.judged and "validation" not in counts and "train" in counts:
        counts["train"] -= len(result.judged.labels)
        counts["validation, held out of the training images"] = len(result.judged.labels)
    return counts


def _stages(result: Record) -> list[dict]:
    if result.probe is None:
        return []
    best, stages = result.probe.best, result.probe.stages
    ends = [end for stage in stages for end in stage.interval]
    return [
        {"stage": stage, "best": stage is best,
         "figure": svg.interval(stage.interval[0], stage.accuracy, stage.interval[1], (min(ends), max(ends)))}
        for stage in stages
    ]  # fmt: skip


def _ledger(result: Record) -> list[dict]:
    ends = [end for row in result.ledger if row.interval for end in row.interval]
    axis = (min([0.0, *ends]), max([0.0, *ends]))
    return [{"row": row, "figure": _gain_figure(row, axis)} for row in result.ledger]


def _gain_figure(row: Gain, axis: tuple[float, float]) -> Markup | None:
    if row.interval is None or row.gain is None:
        return None
    return svg.interval(row.interval[0], row.gain, row.interval[1], axis, on=row.kept)


def _confusion(result: Record, confusion: Sequence[Sequence[int]]) -> dict:
    """Return the matrix of the classes with the most mistakes and, for many classes, the most frequent mistakes."""
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


def _class_rows(result: Record, confusion: Sequence[Sequence[int]]) -> list[dict]:
    """Return images, recall, precision and frequent mistakes of each class, for the classes with the lowest recall."""
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
        {"photo": photos.photo(held_out, i), "file": held_out.names[i] if held_out else "",
         "label": result.class_names[judged.labels[i]], "predicted": result.class_names[judged.predicted[i]],
         "confidence": float(judged.confidence[i]), "own": float(judged.probabilities[i, judged.labels[i]])}
        for i in wrong[:_PHOTOS]
    ]  # fmt: skip
    return {"cards": cards, "count": len(wrong), "missing": sum(card["photo"] is None for card in cards)}


def _suspects(result: Record) -> dict:
    rows = [
        {"suspect": suspect, "photo": photos.photo_named(suspect.file, result.held_out) if i < _PHOTOS else None}
        for i, suspect in enumerate(result.suspects[:_ROWS])
    ]
    first = rows[:_PHOTOS]
    return {"rows": rows, "count": len(result.suspects), "photos": len(first),
            "missing": sum(row["photo"] is None for row in first)}  # fmt: skip


def _heat_maps(result: Record, judged: Judged | None, held_out: ImageData | None) -> dict | None:
    """Return Grad-CAMs of the worst mistakes and of some correct images; None without readable images."""
    if held_out is None or judged is None:
        return None
    wrong, right = judged.mistakes()[:_PHOTOS], np.flatnonzero(judged.predicted == judged.labels)
    right = right[np.unique(judged.labels[right], return_index=True)[1]]  # one correct image of each class
    chosen = [i for some in (wrong, right[:_PHOTOS]) for i in photos.readable(held_out, some)[:_HEAT_MAPS]]
    if not chosen:
        return None
    data = held_out.subset(chosen)
    probabilities = result.probabilities(data)
    classes = [list(dict.fromkeys((int(judged.predicted[i]), int(judged.labels[i])))) for i in chosen]
    try:
        rows = photos.heat_maps(result, data, classes)
    except BackboneError as error:
        return {"cards": [], "why": str(error)}
    cards = [
        {"crop": crop, "label": result.class_names[data.labels[i]],
         "maps": [(url, result.class_names[c], float(probabilities[i, c]))
                  for url, c in zip(maps, classes[i], strict=True)]}
        for i, (crop, *maps) in enumerate(rows)
    ]  # fmt: skip
    return {"cards": cards, "why": ""}


def _augmented(result: Record, held_out: ImageData | None) -> list[list[tuple[str, str]]]:
    return photos.augmented(held_out, result.recipe.policy) if held_out is not None and result.history else []
