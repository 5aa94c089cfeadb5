"""Keep the state of an unfinished run in its output folder, from which the same command resumes the run."""

import json
import logging
import shutil
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from recipes.core.files import unwritable, write_whole
from recipes.core.locks import ProcessLock
from recipes.errors import DataError, OutputError, TrainingError
from recipes.planning.ready_made import Adjusted
from recipes.planning.reason import Reason
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import recipe_facts, recipe_of
from recipes.runs.folder import COMMAND, LOCK, LOGS, STATE, check_output, command_of, finished, load, save
from recipes.runs.record import Record
from recipes.training.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

_PLAN, _CLOCK = "plan.json", "clock.json"


class RunState:
    """Manage the unfinished run of a command in an output folder, as a context manager.

    A lock keeps a second process out while the first one runs. `.state/` holds the command from the start, the recipe
    once it is planned, and the checkpoints of the trainings. This folder is removed when the run is complete or has no
    checkpoint at the end.

    Args:
        directory: The output folder; None to write nothing.
        command: The arguments of the run, name → value.

    Attributes:
        spent: Seconds for which earlier processes worked on the run.

    Raises:
        OutputError: If the folder belongs to another command or a running process, or is not the folder of a run.
    """

    def __init__(self, directory: Path | None, command: dict) -> None:
        self.directory, self.command, self.spent = directory, command, 0.0
        self._lock: ProcessLock | None = None
        self._began = time.monotonic()
        self._created = directory is not None and not directory.exists()
        self._same_command = directory is not None and command_of(directory) == command
        if self._same_command:
            self.spent = self._read(_CLOCK) or 0.0

    @property
    def _folder(self) -> Path:
        """Return the output folder, for methods that are only called with one."""
        assert self.directory is not None
        return self.directory

    def finished(self) -> Record | None:
        """Return the run if it is complete."""
        if not self._same_command or not finished(self._folder):
            return None
        logger.info(
            f"{self.directory} holds the finished run of this command, so nothing is trained. To train again, for "
            f"example on other images, delete the folder first: rm -r {self.directory}"
        )
        return load(self._folder)

    def begin(self) -> None:
        """Create the folder, lock it, and write the command to it."""
        if self.directory is None:
            return
        check_output(self.directory, self.command)
        self._take_lock()
        (self.directory / STATE).mkdir(exist_ok=True)
        self._write(COMMAND, self.command)
        self._same_command = True
        if self._checkpoints():
            logger.info(f"resuming the run in {self.directory}, which was stopped after {self.spent:.0f} s of work")

    def planned_recipe(self, requested: object) -> Recipe | None:
        """Return the recipe that the run began with; None if no recipe was planned yet.

        Args:
            requested: The argument `recipe` of `finetune`; it provides the extra layer of the policy, which is code and
                not saved.
        """
        before = self._read(_PLAN) if self._same_command else None
        if before is None:
            return None
        recipe = recipe_of(before["recipe"])
        changes = dict(requested.changes) if isinstance(requested, Adjusted) else {}
        policy = requested.policy if isinstance(requested, Recipe) else changes.get("policy")
        extra = getattr(policy, "extra", None)
        return recipe if extra is None else replace(recipe, policy=replace(recipe.policy, extra=extra))

    def record_plan(self, recipe: Recipe, images: dict[str, str], environment: dict[str, str]) -> tuple[Reason, ...]:
        """Write the recipe, images and environment of the run, or compare them with those already written.

        Args:
            recipe: The recipe that the run begins with.
            images: Name → fingerprint of all images for training and model selection.
            environment: Versions of the libraries, and the devices. A run resumes in another environment, but the last
                bits of its weights may differ.

        Returns:
            One reason for each change of the environment since the first checkpoint.

        Raises:
            DataError: If the images differ from those that the run began with.
        """
        if self.directory is None:
            return ()
        before = self._read(_PLAN)
        if before is None:
            self._write(
                _PLAN, {"recipe": recipe_facts(recipe), "images": images, "made by": environment, "reasons": []}
            )
            self._write_clock()
            return ()
        _check_same_images(before["images"], images, self.directory)
        earlier = before.get("made by") or before["versions"]  # an earlier version of this library wrote this run
        changes = [
            f"{name}: {earlier[name]} before, {value} now"
            for name, value in environment.items()
            if earlier.get(name, value) != value
        ]
        saved = before.get("reasons", before.get("told", []))  # earlier versions used the second key
        reasons = [Reason.of(each) for each in saved]
        if changes and self._has_results:
            text = (
                "the run was stopped and resumed in another environment ({changes}); the last bits of its weights "
                "may differ from those of an uninterrupted run"
            )
            reasons.append(Reason("run.environment", text, {"changes": ", ".join(changes)}))
            logger.warning(reasons[-1])
        if changes:
            saved = [asdict(reason) for reason in reasons]
            self._write(_PLAN, before | {"made by": environment, "reasons": saved})
        return tuple(reasons)

    def training(self, name: str) -> Checkpoints:
        """Return the checkpoints of one of the run's trainings."""
        return Checkpoints(self.directory and self.directory / STATE / f"{name}.npz", self._write_clock)

    def save(self, result: Record, *, complete: bool = False) -> None:
        """Write the result, or warn that it is only in memory; with `complete`, also remove the state."""
        if self.directory is None:
            return
        try:
            save(result, self.directory)
        except OutputError as error:
            warnings.warn(f"{error}. The result is only in memory; save it with result.save(folder)", stacklevel=3)
            return
        if complete:
            _complete(self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        resumable = self._has_results and not isinstance(error, TrainingError)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            where = f"its state is saved in {self.directory}; run the same command again to resume" if resumable else (
                "before anything was trained"
            )  # fmt: skip
            logger.error(f"\nthe run was stopped; {where}")
        self._release(discard=error is not None and not resumable)

    def _release(self, *, discard: bool) -> None:
        """Release the lock; with `discard`, remove the files that this process created."""
        lock, self._lock = self._lock, None
        assert lock is not None
        if discard:
            shutil.rmtree(self._folder / STATE, ignore_errors=True)
        if discard and self._created:
            shutil.rmtree(self._folder / LOGS, ignore_errors=True)
            lock.release(delete=True)
            if not any(self._folder.iterdir()):
                self._folder.rmdir()
        lock.release()

    def _take_lock(self) -> None:
        lock = ProcessLock(self._folder / LOCK)
        if not lock.acquire():
            raise OutputError(
                f"{self.directory} is being written by another process ({lock.holder()}); wait until it ends, or "
                "choose another folder",
                code="output.locked",
                path=self.directory,
                holder=lock.holder(),
            )
        lock.write_holder()
        self._lock = lock

    def _checkpoints(self) -> list[Path]:
        return sorted((self._folder / STATE).glob("[!.]*.npz"))

    @property
    def _has_results(self) -> bool:
        """Return whether the folder holds a checkpoint or a result."""
        return bool(self._checkpoints()) or (self._folder / "result.json").exists()

    def _read(self, name: str) -> Any:
        path = self._folder / STATE / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path} is damaged ({error}); delete {self.directory} to start again",
                code="output.damaged",
                path=path,
            ) from error

    def _write(self, name: str, value: object) -> None:
        text = json.dumps(value, default=lambda number: number.item())
        try:
            write_whole(self._folder / STATE / name, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise unwritable(self._folder, error, "output.cannot_write") from error

    def _write_clock(self) -> None:
        """Write the seconds of work so far, which count against the time limit after a resume."""
        if self.directory is None:
            return
        text = json.dumps(self.spent + time.monotonic() - self._began)
        with suppress(OSError):  # the checkpoint before the clock failed as well, and was reported
            write_whole(self.directory / STATE / _CLOCK, lambda path: path.write_text(text, encoding="utf-8"))


def _complete(directory: Path) -> None:
    """Remove the state of a run that is saved."""
    (directory / STATE / COMMAND).unlink(missing_ok=True)  # removed first, because this file marks a run as unfinished
    shutil.rmtree(directory / STATE, ignore_errors=True)


def save_with_retries(result: Record, directory: Path) -> Path:
    """Save the run, repeating failed attempts until one succeeds, and return its folder.

    At a terminal, the user may choose another folder before each attempt. Without a terminal, an attempt is made every
    minute.
    """
    first, wait = directory, 1
    while not finished(directory):
        if sys.stdin.isatty():
            answer = input(f"{directory} could not be written. Another folder (Enter: try again): ").strip()
            directory = Path(answer).expanduser() if answer else directory
        else:
            logger.warning(
                f"{directory} could not be written, so the run is only in memory. Free some space on this "
                f"disk. Trying again in {wait} s"
            )
            time.sleep(wait)
            wait = min(2 * wait, 60)
        try:
            save(result, directory)
            _complete(first)
        except OutputError as error:
            logger.error(error)
    return directory


def _check_same_images(before: dict[str, str], images: dict[str, str], directory: Path) -> None:
    changes = {
        "missing": [name for name in before if name not in images],
        "new": [name for name in images if name not in before],
        "changed": [name for name, fingerprint in images.items() if before.get(name, fingerprint) != fingerprint],
    }
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for kind, names in changes.items()
        if names
    ]
    if parts:
        raise DataError(
            f"the images differ from those that the run in {directory} began with: {'; '.join(parts)}. Put the images "
            "back and run the same command again to resume, or delete the folder to start again",
            code="data.changed_since_start",
            path=directory,
            **changes,
        )
