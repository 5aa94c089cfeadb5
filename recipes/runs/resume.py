"""What an output folder holds beside the run while it is made, so that the same command goes on after any end."""

import fcntl
import json
import logging
import os
import shutil
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

from recipes.core.files import write_whole
from recipes.errors import DataError, OutputError, TrainingError
from recipes.planning.recipe import Recipe
from recipes.planning.recipe_json import recipe_facts, recipe_of
from recipes.runs.folder import COMMAND, LOCK, LOGS, STATE, check_output, command_of, finished, load, save
from recipes.runs.record import Record
from recipes.training.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

_PLAN, _CLOCK = "plan.json", "clock.json"
AGAIN = "the same command goes on from there"


class RunState:
    """The unfinished run of a command in an output folder; None: nothing is kept.

    A lock refuses a second process for as long as the first lives, however that ends. `.state/` holds the command, from
    the first second; the recipe, once it is planned; and the states of the trainings. It is gone when the run is
    complete, and when nothing in it was worth keeping.

    spent: seconds that earlier processes have worked on the run.

    Raises: OutputError for the folder of another command, of a living process, or of something else.
    """

    def __init__(self, directory: Path | None, command: dict):
        self.directory, self.command, self.spent, self._lock = directory, command, 0.0, None
        self._began = time.monotonic()
        self._made = directory is not None and not directory.exists()
        self._mine = directory is not None and command_of(directory) == command
        if self._mine:
            self.spent = self._read(_CLOCK) or 0.0

    def finished(self) -> Record | None:
        """The run, if it is complete already."""
        if not self._mine or not finished(self.directory):
            return None
        logger.info(
            f"{self.directory} holds the finished run of this command, and nothing is trained; to train anew, for "
            f"example on other images, delete it: rm -r {self.directory}"
        )
        return load(self.directory)

    def begin(self) -> None:
        """Take hold of the folder, before anything long begins."""
        if self.directory is None:
            return
        check_output(self.directory, self.command)
        self._take_lock()
        state = self.directory / STATE
        state.mkdir(exist_ok=True)
        self._write(COMMAND, self.command)
        self._mine = True
        if self._states():
            logger.info(f"resuming the run in {self.directory}, which was stopped after {self.spent:.0f} s of work")

    def plan(self, asked) -> Recipe | None:
        """The recipe that the run began with, where one was planned already; `asked`: what `finetune` was asked for."""
        before = self._read(_PLAN) if self._mine else None
        if before is None:
            return None
        kept = recipe_of(before["recipe"])
        policy = asked.policy if isinstance(asked, Recipe) else dict(getattr(asked, "changes", ())).get("policy")
        extra = getattr(policy, "extra", None)  # code, which is not written to disk
        return kept if extra is None else replace(kept, policy=replace(kept.policy, extra=extra))

    def keep_plan(self, recipe: Recipe, images: dict[str, str], made_by: dict[str, str]) -> tuple[str, ...]:
        """Write down what the run begins with, or compare it with that; returns, in words, what has ever changed.

        images:  name → fingerprint of all images that are trained on or chosen by.
        made_by: versions of the libraries, and the devices: with others a run goes on, but not to the same bits; where
            nothing was trained with the ones before, these make it all.

        Raises: DataError when these are other images than the run began with.
        """
        if self.directory is None:
            return ()
        before = self._read(_PLAN)
        if before is None:
            self._write(_PLAN, {"recipe": recipe_facts(recipe), "images": images, "made by": made_by, "told": []})
            self._tick()
            return ()
        _check_same(before["images"], images, self.directory)
        last = before.get("made by") or before["versions"]  # of an earlier version of this library
        other = [f"{k}: {last[k]} before, {value} now" for k, value in made_by.items() if last.get(k, value) != value]
        told = before.get("told", [])
        if other and not self._begun:
            self._write(_PLAN, before | {"made by": made_by})
        elif other:
            told.append(
                f"the run was stopped, and went on with other means ({', '.join(other)}): its weights may differ in "
                "bits from those of an undisturbed one"
            )
            logger.warning(told[-1])
            self._write(_PLAN, before | {"made by": made_by, "told": told})
        return tuple(told)

    def training(self, name: str) -> Checkpoints:
        """The states of one of the run's trainings."""
        return Checkpoints(self.directory and self.directory / STATE / f"{name}.npz", self._tick)

    def save(self, result: Record, *, complete: bool = False) -> None:
        """Write the result, or say why it is only in memory; `complete`: the state is not needed any more."""
        if self.directory is None:
            return
        try:
            save(result, self.directory)
        except OutputError as error:
            warnings.warn(f"{error}: the result is in memory, result.save(folder) writes it", stacklevel=3)
            return
        if complete:
            _complete(self.directory)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if self._lock is None:
            return
        kept = self._begun and not (kind and issubclass(kind, TrainingError))
        if kind in (KeyboardInterrupt, SystemExit):
            told = f"its state is in {self.directory}: {AGAIN}" if kept else "before anything was trained"
            logger.error(f"\nthe run was stopped; {told}")
        if kind is not None and not kept:
            self._clean()
        os.close(self._lock)
        self._lock = None

    def _clean(self) -> None:
        shutil.rmtree(self.directory / STATE, ignore_errors=True)
        if self._made:
            shutil.rmtree(self.directory / LOGS, ignore_errors=True)
            (self.directory / LOCK).unlink(missing_ok=True)
            if not any(self.directory.iterdir()):
                self.directory.rmdir()

    def _take_lock(self) -> None:
        try:
            self._lock = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise OutputError(
                f"{self.directory} is being written by another process ({holder}); wait for its end, or choose "
                "another folder"
            ) from None
        except OSError as error:
            raise OutputError(f"{self.directory} cannot be locked: {error.strerror}; choose another folder") from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"pid {os.getpid()}".encode(), 0)

    def _states(self) -> list[Path]:
        return sorted((self.directory / STATE).glob("[!.]*.npz")) if self.directory else []

    @property
    def _begun(self) -> bool:
        """Whether anything trained was kept."""
        return bool(self._states()) or (self.directory / "result.json").exists()

    def _read(self, name: str):
        try:
            return json.loads((self.directory / STATE / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{self.directory / STATE / name} is damaged ({error}); delete {self.directory}"
            ) from error

    def _write(self, name: str, value) -> None:
        text = json.dumps(value, default=lambda number: number.item())
        try:
            write_whole(self.directory / STATE / name, lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise OutputError(f"{self.directory} cannot be written: {error.strerror}; choose another folder") from error

    def _tick(self) -> None:
        """Work that was kept counts, against the time limit too."""
        if self.directory is None:
            return
        text = json.dumps(self.spent + time.monotonic() - self._began)
        path = self.directory / STATE / _CLOCK
        temporary = path.with_name(f".new-{_CLOCK}")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)  # the state before it could not be written either, which was told


def _complete(directory: Path) -> None:
    """The run is saved, and its state not needed any more."""
    (directory / STATE / COMMAND).unlink(missing_ok=True)  # first, for this says that the run is not finished
    shutil.rmtree(directory / STATE, ignore_errors=True)


def saved_in_the_end(result: Record, directory: Path) -> Path:
    """Where the run is saved: `directory`, tried again until there is room, or what the user at a terminal says."""
    first, wait = directory, 1
    while not finished(directory):
        if sys.stdin.isatty():
            answer = input(f"{directory} could not be written. Another folder (Enter: try it again): ").strip()
            directory = Path(answer).expanduser() if answer else directory
        else:
            logger.warning(f"{directory} could not be written; the run is in memory, and it is tried again in {wait} s")
            time.sleep(wait)
            wait = min(2 * wait, 60)
        try:
            save(result, directory)
            _complete(first)
        except OutputError as error:
            logger.error(error)
    return directory


def _check_same(before: dict[str, str], images: dict[str, str], directory: Path) -> None:
    gone, new = [n for n in before if n not in images], [n for n in images if n not in before]
    other = [name for name, print_ in images.items() if before.get(name, print_) != print_]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
        for names, what in ((gone, "gone"), (new, "new"), (other, "changed")) if names
    ]  # fmt: skip
    if parts:
        raise DataError(
            f"the images are not those that the run in {directory} began with: {'; '.join(parts)}. Put them back and "
            f"give the same command again: it goes on; or delete {directory} to begin anew"
        )
