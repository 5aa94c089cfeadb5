"""A Result on disk: model.keras, result.json, probe.npz and judged.npz, none of which can carry code."""

import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

from recipes.auditing.audit import Audit, Finding
from recipes.core.archives import load_arrays
from recipes.core.files import check_writable, write_whole
from recipes.core.output import safe_output
from recipes.core.text import short
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
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import _tuples, recipe_facts, recipe_of
from recipes.probing.label_errors import Suspect
from recipes.probing.logistic import Linear
from recipes.probing.probe import MirrorTest, Probe, StageResult
from recipes.runs.record import Record

_DESCRIPTION, _MODEL, _PROBE, _JUDGED = "result.json", "model.keras", "probe.npz", "judged.npz"
STATE, COMMAND, LOCK = ".state", "command.json", ".lock"  # of a run that is not finished, see `run_state`
LOGS = "logs"  # for TensorBoard
_OURS = {f"{new}{name}" for name in (_MODEL, _PROBE, _JUDGED) for new in ("", ".new-")}
_OURS |= {f".new-{_DESCRIPTION}", ".writable", STATE, LOCK, LOGS}
_LARGEST = 2**28  # bytes of the description: some ten million files
_PLAIN = ("class_names", "history", "backbone", "seconds", "command", "versions", "table")


def _difference(key: str, before, now) -> str:
    """Of long descriptions that begin alike the part where they differ."""
    texts = [repr(before), repr(now)]
    alike = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    shown = (f"…{text[alike - 30 :]}" if alike > 30 and len(text) > 80 else text for text in texts)
    return "{} was {}, is {}".format(key, *(short(text, 80) for text in shown))


def check_output(directory, command: dict) -> None:
    """Whether a run of `command` may be written to `directory`: a new or empty folder, or one of the same command.

    Raises: OutputError, showing the difference, or why the folder cannot be written.
    """
    directory = Path(directory)
    before = command_of(directory)
    strange = {p.name for p in directory.iterdir()} - _OURS if directory.is_dir() else set()
    if strange and before is None:
        raise OutputError(f"{directory} holds something that is no run; choose an empty or a new folder")
    differing = [key for key in {**(before or {}), **command} if before and command.get(key) != before.get(key)]
    if differing:
        shown = "; ".join(_difference(key, before.get(key), command.get(key)) for key in differing)
        raise OutputError(f"{directory} holds the run of another command ({shown}); choose another folder")
    check_writable(directory)


def finished(directory: Path) -> bool:
    """Whether a run is complete there."""
    return (directory / _DESCRIPTION).is_file() and not (directory / STATE / COMMAND).exists()


def command_of(directory: Path) -> dict | None:
    """Of the run in a folder, finished or not; None where there is none."""
    if (directory / _DESCRIPTION).is_file():
        return _description(directory)["command"]
    return _object(directory, f"{STATE}/{COMMAND}") if (directory / STATE / COMMAND).is_file() else None


def save(result: Record, directory) -> None:
    """Write `result`, the description last, each file under a temporary name first."""
    directory = Path(directory)
    check_output(directory, result.command)
    try:
        write_whole(directory / _MODEL, result.model.save)
        if result.probe:
            write_whole(directory / _PROBE, lambda path: _save_probe(result.probe, path))
        if result.judged:
            write_whole(directory / _JUDGED, lambda path: np.savez_compressed(path, **vars(result.judged)))
        text = json.dumps(describe(result), indent=1, default=lambda number: number.item())  # NumPy's numbers
        write_whole(directory / _DESCRIPTION, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise OutputError(
            f"the run could not be written to {directory} ({error.strerror or error}); make room, or choose another "
            "folder"
        ) from error


def describe(result: Record) -> dict:
    """Everything of a Result but weights, as JSON values."""
    plain = {name: getattr(result, name) for name in _PLAIN}
    return plain | {
        "recipe": recipe_facts(result.recipe),
        "audit": asdict(replace(result.audit, layout=None)),
        "probe": result.probe and _probe_facts(result.probe),
        "selection": result.selection and asdict(result.selection),
        "calibration": result.calibration and asdict(result.calibration),
        "ledger": [asdict(gain) for gain in result.ledger],
        "suspects": [asdict(suspect) for suspect in result.suspects],
        "validation": result.validation and asdict(result.validation),
        "test": result.test and asdict(result.test),
        "held_out": _files(result.held_out),
    }


def _files(data: ImageData | None) -> dict | None:
    """Where images lie; None where they are no files."""
    if data is not None and isinstance(data.images, Records):
        index, rows = data.images.index, data.images.rows.tolist()
        return {"pack": os.path.abspath(index.folder), "key": index.key, "rows": rows, "labels": data.labels.tolist()}
    if data is None or not data.on_disk:
        return None
    return {"files": [os.path.abspath(image) for image in data.images], "labels": data.labels.tolist()}


def _held_out(told: dict | None, class_names) -> ImageData | None:
    if not told:
        return None
    if "pack" in told:
        return in_pack(Path(told["pack"]), told["key"], told["rows"], told["labels"], class_names)
    return ImageData(told["files"], np.array(told["labels"], np.int64), tuple(class_names), tuple(told["files"]))


def _probe_facts(probe: Probe) -> dict:
    facts = {name: getattr(probe, name) for name in ("seconds", "image_seconds", "origin")}
    return facts | {"mirrors": asdict(probe.mirrors)}


@safe_output()
def load(directory) -> Record:
    """The Result that `Result.save` or `finetune(output=...)` wrote.

    Raises: OutputError when the folder is no run, or a file of it is missing or damaged.
    """
    directory = Path(directory)
    if not (directory / _DESCRIPTION).is_file():
        there = "exists but has no result.json" if directory.exists() else "does not exist"
        there += " yet: its run is not finished, and its command given again goes on" if command_of(directory) else ""
        raise OutputError(f"{directory} {there}; give the folder that finetune(output=...) wrote")
    told = _description(directory)
    try:
        model = load_model(_inside(directory, _MODEL))
        probe = told["probe"] and _load_probe(_inside(directory, _PROBE), **told["probe"])
        return Record(
            model=model, probe=probe, recipe=recipe_of(told["recipe"]), audit=_audit(told["audit"]),
            suspects=tuple(Suspect(**suspect) for suspect in told["suspects"]),
            ledger=tuple(_gain(gain) for gain in told["ledger"]), calibration=_calibration(told["calibration"]),
            validation=_evaluation(told["validation"]),
            test=_evaluation(told["test"]), selection=_selection(told["selection"]),
            held_out=_held_out(told.get("held_out"), told["class_names"]),
            judged=_load_judged(_inside(directory, _JUDGED), len(told["class_names"])),
            **{name: told[name] for name in _PLAIN},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise OutputError(f"the run in {directory} is damaged or of another version: {error}") from error


def saved_recipe(directory: Path) -> Recipe:
    """Return the recipe of the run in a folder, without loading its model.

    Raises: OutputError when the description is damaged.
    """
    told = _description(directory)
    try:
        return recipe_of(told["recipe"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"the run in {directory} is damaged or of another version: {error}") from error


def _description(directory: Path) -> dict:
    told = _object(directory, _DESCRIPTION)
    if not isinstance(told.get("command"), dict):
        raise OutputError(f"{directory / _DESCRIPTION} is not the description of a run; choose another folder")
    return told


def _object(directory: Path, name: str) -> dict:
    path = _inside(directory, name)
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise OutputError(f"{path} is refused: {size:,} bytes are more than {_LARGEST:,}")
        told = json.loads(path.read_text(encoding="utf-8"))
    except OutputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise OutputError(f"{path} is not the description of a run; choose another folder")
    return told


def _inside(directory: Path, name: str) -> Path:
    """A file of the folder itself: a run from elsewhere may come with links to other places."""
    path = directory / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory)):
        raise OutputError(f"{path} is refused: it is a link to {os.path.realpath(path)}, outside the run's folder")
    return path


def _audit(told: dict) -> Audit:
    lists = ("files", "details")
    findings = tuple(
        Finding(**{name: tuple(value) if name in lists else value for name, value in finding.items()})
        for finding in told["findings"]
    )
    prints = {split: tuple(prints) for split, prints in told["fingerprints"].items()}
    return Audit(findings, prints, told.get("same", {}))


def _evaluation(told: dict | None) -> Evaluation | None:
    return told and Evaluation(**{name: _tuples(value) for name, value in told.items()})


def _calibration(told: dict | None) -> Calibration | None:
    return told and Calibration(**told)


def _gain(told: dict) -> Gain:
    return Gain(**{name: _tuples(value) for name, value in told.items()})


def _selection(told: dict | None) -> Selection | None:
    return told and Selection(**{name: _tuples(value) for name, value in told.items()})


def _load_judged(path: Path, classes: int) -> Judged | None:
    """None of a run that has none: nothing was judged, or an earlier version wrote it."""
    if not path.exists():
        return None
    judged = Judged(**load_arrays(path))
    labels, found = judged.labels, judged.probabilities
    fits = labels.dtype.kind == "i" and labels.ndim == 1 and found.shape == (len(labels), classes)
    if not (fits and np.isin(labels, np.arange(classes)).all() and ((found >= 0) & (found <= 1 + 1e-6)).all()):
        raise OutputError(f"{path} does not fit the run's {classes} classes")
    return judged


def _save_probe(probe: Probe, path: Path) -> None:
    arrays = {}
    for i, stage in enumerate(probe.stages):
        for field in fields(StageResult):
            if field.name != "classifier":
                arrays[f"{i}.{field.name}"] = np.asarray(getattr(stage, field.name))
        arrays |= {f"{i}.{name}": np.asarray(getattr(stage.classifier, name)) for name in ("kernel", "bias", "l2")}
    np.savez_compressed(path, **arrays)


def _load_probe(path: Path, mirrors: dict, **facts) -> Probe:
    arrays = load_arrays(path)
    count = len({name.split(".")[0] for name in arrays})
    stages = tuple(_load_stage(arrays, i) for i in range(count))
    return Probe(stages, mirrors=MirrorTest(**mirrors), **facts)


def _load_stage(arrays, i: int) -> StageResult:
    def scalar(name):
        return arrays[f"{i}.{name}"].item()

    def numbers(name):
        return tuple(arrays[f"{i}.{name}"].tolist())

    classifier = Linear(arrays[f"{i}.kernel"], arrays[f"{i}.bias"], scalar("l2"))
    return StageResult(
        **{name: scalar(name) for name in ("name", "features", "accuracy", "seconds", "nll", "logme")},
        **{name: numbers(name) for name in ("interval", "taps", "mirror_gain")},
        **{name: arrays[f"{i}.{name}"] for name in ("out_of_fold", "losses")}, classifier=classifier,
    )  # fmt: skip
