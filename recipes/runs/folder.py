"""Save and load runs as model.keras, result.json, probe.npz and judged.npz; none of these can carry code."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recipes.auditing.audit import Audit, Finding
from recipes.core.archives import load_arrays
from recipes.core.files import check_writable, write_whole
from recipes.core.locks import HOLDER_SUFFIX
from recipes.core.output import safe_output
from recipes.data.images import ImageData
from recipes.data.packs.manifest import in_pack
from recipes.data.packs.records import Records
from recipes.errors import OutputError
from recipes.evaluation.calibrate import Calibration
from recipes.evaluation.ledger import Gain
from recipes.evaluation.metrics import Evaluation
from recipes.evaluation.predictions import Judged
from recipes.evaluation.selection import Selection
from recipes.networks.keras_file import load_model
from recipes.planning.lecture_table import LectureTable
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import _tuples, recipe_facts, recipe_of
from recipes.probing.label_errors import Suspect
from recipes.runs.difference import difference, more_epochs
from recipes.runs.probe_file import load_probe, probe_facts, save_probe
from recipes.runs.record import Record

T = TypeVar("T")

_DESCRIPTION, _MODEL, _PROBE, _JUDGED = "result.json", "model.keras", "probe.npz", "judged.npz"
STATE, COMMAND, LOCK = ".state", "command.json", ".lock"  # folder of an unfinished run's state, see `RunState`
LOGS = "logs"  # folder of the logs for TensorBoard
_OURS = {f"{prefix}{name}" for name in (_MODEL, _PROBE, _JUDGED) for prefix in ("", ".new-")}
_OURS |= {f".new-{_DESCRIPTION}", ".writable", STATE, LOCK, LOCK + HOLDER_SUFFIX, LOGS}
_LARGEST = 2**28  # maximum bytes of the description, enough for some ten million files
_PLAIN = ("class_names", "history", "backbone", "seconds", "command", "versions")
_PARTS = {"selection": Selection, "calibration": Calibration, "validation": Evaluation, "test": Evaluation}
_REASONS = re.compile(r"^(Recipe\(.*?), reasons=\(.*\)\)$", re.DOTALL)
_LISTS = {"ledger": Gain, "suspects": Suspect}


def check_output(directory: str | os.PathLike, command: dict) -> None:
    """Check that a run of `command` can be written to `directory`.

    Args:
        directory: A new folder, an empty one, or the folder of a run of the same command.
        command: The arguments of the run, name → value.

    Raises:
        OutputError: If the folder holds something else, or cannot be written.
    """
    directory = Path(directory)
    before = command_of(directory)
    if before is None:
        others = sorted({p.name for p in directory.iterdir()} - _OURS) if directory.is_dir() else []
        if others:
            raise OutputError(
                f"{directory} is not the folder of a run: it holds {others[0]!r}; choose an empty or a new folder",
                code="output.not_a_run",
                path=directory,
            )
    elif before:
        differing = [key for key in {**before, **command} if command.get(key) != before.get(key)]
        if differing:
            shown = "; ".join(difference(key, before.get(key), command.get(key)) for key in differing)
            advice = f"Use another folder, such as output='{directory}-2', or delete {directory} to replace it"
            if differing == ["recipe"] and more_epochs(before.get("recipe"), command.get("recipe")):
                advice += f". To train its network further, use backbone='{directory}' and another folder"
            raise OutputError(
                f"{directory} holds another run ({shown}). {advice}",
                code="output.other_command",
                path=directory,
                differences=differing,
            )
    check_writable(directory)


def finished(directory: Path) -> bool:
    """Return whether the folder holds a finished run."""
    return (directory / _DESCRIPTION).is_file() and not (directory / STATE / COMMAND).exists()


def command_of(directory: Path) -> dict | None:
    """Return the command of the finished or unfinished run in a folder; None if there is no run."""
    if (directory / _DESCRIPTION).is_file():
        return _description(directory)["command"]
    started = (directory / STATE / COMMAND).is_file()
    return _without_reasons(_read_object(directory, f"{STATE}/{COMMAND}")) if started else None


def _without_reasons(command: Any) -> Any:
    """Return a saved command without the recipe's reasons, which earlier versions included."""
    if isinstance(command, dict):
        return {name: _without_reasons(value) for name, value in command.items()}
    if isinstance(command, list):
        return [_without_reasons(value) for value in command]
    return _REASONS.sub(r"\1)", command) if isinstance(command, str) else command


def save(result: Record, directory: str | os.PathLike) -> None:
    """Write a run: each file first under a temporary name, and the description last.

    Raises:
        OutputError: If the folder holds something else, or cannot be written.
    """
    directory = Path(directory)
    check_output(directory, result.command)
    probe, judged = result.probe, result.judged
    try:
        write_whole(directory / _MODEL, result.model.save)
        if probe:
            write_whole(directory / _PROBE, lambda path: save_probe(probe, path))
        if judged:
            write_whole(directory / _JUDGED, lambda path: np.savez_compressed(path, **vars(judged)))
        text = json.dumps(describe(result), indent=1, default=lambda number: number.item())  # converts NumPy's numbers
        write_whole(directory / _DESCRIPTION, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(
            f"the run could not be written to {directory} ({error.strerror or error}); make room, or choose another "
            "folder",
            code="output.not_written",
            path=directory,
        ) from error


def describe(result: Record) -> dict:
    """Return all values of a run except its weights and arrays, as JSON values."""
    plain = {name: getattr(result, name) for name in _PLAIN}
    return plain | {
        "table": result.table and asdict(result.table),
        "recipe": recipe_facts(result.recipe),
        "audit": asdict(replace(result.audit, layout=None)),
        "probe": result.probe and probe_facts(result.probe),
        **{name: _part_facts(getattr(result, name)) for name in _PARTS},
        **{name: [asdict(each) for each in getattr(result, name)] for name in _LISTS},
        "held_out": _files(result.held_out),
    }


def _part_facts(part: Evaluation | Selection | Calibration | None) -> dict | None:
    """Return a part of a run as JSON values, without the class names, which the run stores once."""
    return part and {name: value for name, value in asdict(part).items() if name != "class_names"}


def _files(data: ImageData | None) -> dict | None:
    """Return the paths of images; None if they are not files."""
    if data is not None and isinstance(data.images, Records):
        index, rows = data.images.index, data.images.rows.tolist()
        return {"pack": os.path.abspath(index.folder), "key": index.key, "rows": rows, "labels": data.labels.tolist()}
    if data is None or not data.on_disk:
        return None
    return {"files": [os.path.abspath(str(image)) for image in data.images], "labels": data.labels.tolist()}


def _held_out(facts: dict | None, class_names: Sequence[str]) -> ImageData | None:
    if not facts:
        return None
    if "pack" in facts:
        return in_pack(Path(facts["pack"]), facts["key"], facts["rows"], facts["labels"], class_names)
    return ImageData(facts["files"], np.array(facts["labels"], np.int64), tuple(class_names), tuple(facts["files"]))


@safe_output()
def load(directory: str | os.PathLike) -> Record:
    """Return the run that `Result.save` or `finetune(output=...)` wrote.

    Raises:
        OutputError: If the folder holds no finished run, or a file of the run is missing or damaged.
    """
    directory = Path(directory)
    if not (directory / _DESCRIPTION).is_file():
        state = "exists but has no result.json" if directory.exists() else "does not exist"
        if command_of(directory):
            state += " yet, because its run is not finished (run the same command again to finish it)"
        raise OutputError(
            f"{directory} {state}; expected the folder that finetune(output=...) wrote",
            code="output.unfinished" if command_of(directory) else "output.no_run",
            path=directory,
        )
    facts = _description(directory)
    try:
        model = load_model(_inside(directory, _MODEL))
        probe = facts["probe"] and load_probe(_inside(directory, _PROBE), **facts["probe"])
        values: dict[str, Any] = {name: facts[name] for name in _PLAIN}
        values |= {name: _made(kind, facts[name]) for name, kind in _PARTS.items() if facts[name]}
        values |= {name: tuple(_made(kind, each) for each in facts[name]) for name, kind in _LISTS.items()}
        return Record(
            model=model, probe=probe, recipe=recipe_of(facts["recipe"]), audit=_audit(facts["audit"]),
            table=LectureTable.saved(facts["table"]),
            held_out=_held_out(facts.get("held_out"), facts["class_names"]),
            judged=_load_judged(_inside(directory, _JUDGED), len(facts["class_names"])),
            **values,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise _damaged(directory, error) from error


def saved_recipe(directory: Path) -> Recipe:
    """Return the recipe of the run in a folder, without loading its model.

    Raises:
        OutputError: If the description is damaged.
    """
    facts = _description(directory)
    try:
        return recipe_of(facts["recipe"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(directory, error) from error


def _damaged(directory: Path, error: Exception) -> OutputError:
    return OutputError(
        f"the run in {directory} is damaged or of another version ({error}); train again",
        code="output.damaged",
        path=directory,
    )


def _description(directory: Path) -> dict:
    facts = _read_object(directory, _DESCRIPTION)
    if not isinstance(facts.get("command"), dict):
        raise _no_description(directory / _DESCRIPTION)
    return facts | {"command": _without_reasons(facts["command"])}


def _no_description(path: Path) -> OutputError:
    return OutputError(
        f"{path} is not the description of a run; choose another folder", code="output.no_description", path=path
    )


def _read_object(directory: Path, name: str) -> dict:
    """Read a JSON object from a file of the folder."""
    path = _inside(directory, name)
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise OutputError(
                f"{path} has {size:,} bytes; at most {_LARGEST:,} are read", code="output.too_large", path=path
            )
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OutputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(
            f"{path} cannot be read ({error}); restore it from a copy, or train again",
            code="output.unreadable",
            path=path,
        ) from error
    if not isinstance(facts, dict):
        raise _no_description(path)
    return facts


def _inside(directory: Path, name: str) -> Path:
    """Return the path of a file in the folder; reject links, which a downloaded run may have, to other places."""
    path = directory / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory)):
        raise OutputError(
            f"{path} is a link to {os.path.realpath(path)}, outside the run's folder; copy the file",
            code="output.link",
            path=path,
        )
    return path


def _made(kind: Callable[..., T], values: Mapping[str, Any]) -> T:
    """Make a dataclass from JSON values, with tuples in place of lists."""
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _audit(facts: dict) -> Audit:
    findings = tuple(_made(Finding, finding) for finding in facts["findings"])
    prints = {split: tuple(prints) for split, prints in facts["fingerprints"].items()}
    return Audit(findings, prints, facts.get("same", {}))


def _load_judged(path: Path, classes: int) -> Judged | None:
    """Return the predictions of the held-out images; None if the run, or the version that wrote it, has none."""
    if not path.exists():
        return None
    judged = Judged(**load_arrays(path))
    labels, rows = judged.labels, judged.probabilities
    fits = labels.dtype.kind == "i" and labels.ndim == 1 and rows.shape == (len(labels), classes)
    if not (fits and np.isin(labels, np.arange(classes)).all() and ((rows >= 0) & (rows <= 1 + 1e-6)).all()):
        raise OutputError(
            f"{path} does not match the run's {classes} classes; train again",
            code="output.wrong_predictions",
            path=path,
        )
    return judged
