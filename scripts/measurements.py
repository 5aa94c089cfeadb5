"""Rows of measurements: what a benchmark found, its target, its physical limit, and on which machine in which state.

A script that measures takes `--rows FOLDER` and appends its figures to FOLDER/BENCHMARK.jsonl, one JSON object a line:

    python scripts/benchmark_import.py --rows benchmarks/rows
    python scripts/make_results.py                             # writes benchmarks/RESULTS.md from the rows

Nothing is written without the option. Of the rows with the same benchmark and name the newest counts; the earlier ones
stay in the file as its history. Only the standard library is imported: some benchmarks run without TensorFlow.
"""

import argparse
import functools
import json
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "benchmarks" / "rows"
IDLE = 0.05  # share of the machine's CPU time that other processes may use on an idle machine


@dataclass(frozen=True)
class Machine:
    """Where a row was measured. `packages`: name → version, of TensorFlow, Keras, and JAX and torch where used."""

    cpu: str
    cores: int
    memory_gib: float | None
    os: str
    python: str
    packages: dict[str, str]
    gpu: str = ""

    def __str__(self) -> str:
        memory = f", {number(self.memory_gib)} GiB" if self.memory_gib else ""
        versions = ", ".join(f"{name} {version}" for name, version in {"Python": self.python, **self.packages}.items())
        return f"{self.cores} cores of {self.cpu}{memory}, {self.gpu or 'no GPU'}, {self.os}; {versions}"


@dataclass(frozen=True)
class State:
    """What else the machine did during a measurement.

    `others`: share of the machine's CPU time that other processes used. `load`: load averages at the start and at the
    end. `recorded`: what a person noted, for rows measured before scripts recorded it themselves.
    """

    others: float | None = None
    load: tuple[float, float] | None = None
    recorded: str = ""

    def __str__(self) -> str:
        if self.recorded:
            return f"{self.recorded} (noted by hand)"
        load = "load {} to {}".format(*map(number, self.load)) if self.load else ""
        if self.others is None:
            return load or "not recorded"
        found = "idle" if self.others < IDLE else "busy"
        return ", ".join(filter(None, [f"{found}: other processes used {self.others:.0%} of the CPU time", load]))


@dataclass(frozen=True)
class Row:
    """One figure. `result` is None for a figure that nobody has measured.

    `interval`: 95 % interval of the result. `details`: the figures behind the result, such as the seconds of both
    sides, by names that hold their units. `at_least` or `at_most`: the target in the result's unit; `target`: what the
    target is, in words. `limit`: the best result that physics allows, in the same unit; `limit_text`: why.
    """

    benchmark: str
    name: str
    result: float | None
    unit: str
    command: str
    date: str
    machine: Machine
    state: State
    commit: str = ""
    interval: tuple[float, float] | None = None
    details: dict[str, float | str] = field(default_factory=dict)
    at_least: float | None = None
    at_most: float | None = None
    target: str = ""
    limit: float | None = None
    limit_text: str = ""

    def __post_init__(self):
        for problem in self._problems():
            raise ValueError(f"row {self.name!r} of benchmark {self.benchmark!r}: {problem}")

    def _problems(self):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.benchmark):
            yield "`benchmark` names a file: lower-case letters, digits and underscores"
        if not self.name or not self.command:
            yield "`name` and `command` must not be empty"
        if not is_date(self.date):
            yield f"`date` must be an ISO date, got {self.date!r}"
        for name in ("result", "at_least", "at_most", "limit"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                yield f"`{name}` must be a finite number or None, got {value!r}"
        if self.at_least is not None and self.at_most is not None:
            yield "give `at_least` or `at_most`, not both"
        if self.interval and not self.interval[0] <= self.interval[1]:
            yield f"`interval` must be (low, high), got {self.interval!r}"

    @property
    def goal(self) -> float | None:
        """The number that the result must reach; None without one."""
        return self.at_most if self.at_least is None else self.at_least

    @property
    def met(self) -> bool | None:
        """Whether the result reaches the target; None where either is missing."""
        if self.result is None or self.goal is None:
            return None
        return self.result <= self.goal if self.at_least is None else self.result >= self.goal

    def text(self) -> str:
        """Return the row as one line of JSON, without the fields that have their default."""
        optional = {each.name: each.default for each in fields(self) if each.default is not MISSING}
        values = {name: value for name, value in asdict(self).items() if optional.get(name, MISSING) != value}
        return json.dumps(values, ensure_ascii=False)


def row(line: str) -> Row:
    """Return the row of one line of JSON."""
    values = json.loads(line)
    state = values["state"]
    load = tuple(state["load"]) if state.get("load") else None
    values |= {"machine": Machine(**values["machine"]), "state": State(**state | {"load": load})}
    return Row(**values | {"interval": tuple(values["interval"]) if values.get("interval") else None})


def read(folder: Path = ROWS) -> list[Row]:
    """Return all rows of a folder, file by file in the order of their names."""
    files = sorted(folder.glob("*.jsonl"))
    return [row(line) for file in files for line in file.read_text("utf-8").splitlines() if line]


def histories(rows: list[Row]) -> list[list[Row]]:
    """Return the rows of each benchmark and name together, the newest first, in the order of their first appearance."""
    found = {}
    for each in rows:
        found.setdefault((each.benchmark, each.name), []).append(each)
    return [sorted(reversed(same), key=lambda each: each.date, reverse=True) for same in found.values()]


def is_date(text: str) -> bool:
    with suppress(ValueError):
        return bool(datetime.fromisoformat(text))
    return False


def number(value: float) -> str:
    """Return a number for a table: four digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rounded(value):
    """Return a measured number with five digits; anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) or hasattr(value, "dtype") else value


class Recorder:
    """Appends the figures of one benchmark to FOLDER/BENCHMARK.jsonl, each at once; does nothing without a folder.

    `variant`: what sets this run apart from the usual one, such as "XLA"; it becomes part of each row's name.
    """

    def __init__(self, benchmark: str, folder: Path | None, variant: str = ""):
        self.benchmark, self.folder, self.variant = benchmark, folder, variant
        self._began, self._used, self._load = time.monotonic(), processor_seconds(), load_average()

    def add(self, name: str, result: float | None, unit: str = "", **more) -> None:
        """Append a row. `more`: fields of `Row`."""
        if self.folder is None:
            return
        if "details" in more:
            more["details"] = {key: rounded(value) for key, value in more["details"].items()}
        if "interval" in more:
            more["interval"] = tuple(map(rounded, more["interval"]))
        found = Row(
            self.benchmark,
            f"{name}, {self.variant}" if self.variant else name,
            rounded(result),
            unit,
            command=command_line(sys.argv),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=this_machine(),
            state=self._state(),
            commit=commit(),
            **more,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{self.benchmark}.jsonl", "a", encoding="utf-8") as file:
            file.write(found.text() + "\n")

    def _state(self) -> State:
        """The machine's state since the benchmark began."""
        now, load = processor_seconds(), load_average()
        others = others_share(self._used, now, time.monotonic() - self._began) if now and self._used else None
        return State(others, None if load is None or self._load is None else (self._load, load))


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark's parser the option `--rows FOLDER`."""
    parser.add_argument(
        "--rows", type=Path, metavar="FOLDER", help="append the figures to a file in FOLDER, such as benchmarks/rows"
    )


def command_line(arguments: list[str]) -> str:
    """Return the command that repeats this run, without `--rows`, and without the folders above absolute paths."""
    script = Path(arguments[0]).resolve()
    script = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    words, rest = ["python", script], iter(arguments[1:])
    for word in rest:
        if word == "--rows":
            next(rest, None)
        elif not word.startswith("--rows="):
            words.append(Path(word).name if Path(word).is_absolute() else word)
    backend = os.environ.get("KERAS_BACKEND")
    return (f"KERAS_BACKEND={backend} " if backend else "") + shlex.join(words)


def processor_seconds() -> tuple[float, float] | None:
    """Return the CPU seconds of all processes, and of this one with its descendants; None where /proc is missing."""
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    except (OSError, ValueError):
        return None
    parents, used = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            used[int(path.parent.name)] = sum(map(int, fields[11:15]))  # with those of children that it waited for
    family, size = {os.getpid()}, 0
    while len(family) > size:
        size = len(family)
        family |= {process for process, parent in parents.items() if parent in family}
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + sum(rest)) / ticks, sum(used.get(process, 0) for process in family) / ticks


def others_share(before: tuple[float, float], after: tuple[float, float], seconds: float) -> float:
    """Return the share of the machine's CPU time that other processes used between two readings."""
    others = (after[0] - before[0]) - (after[1] - before[1])
    return round(max(0.0, others) / max(seconds * (os.cpu_count() or 1), 1e-9), 4)


def load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@functools.cache
def this_machine() -> Machine:
    """Return the facts of the machine that this process runs on."""
    memory = None
    with suppress(ValueError, OSError, AttributeError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    names = ["tensorflow", "keras", *(name for name in ("jax", "torch") if name in sys.modules)]
    packages = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return Machine(
        cpu_model(), os.cpu_count() or 1, memory, platform.system(), platform.python_version(), packages,
        printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").replace("\n", ", "),
    )  # fmt: skip


def cpu_model() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M):
            return found[1].strip()
    return platform.processor() or platform.machine()


@functools.cache
def commit() -> str:
    """Return the short hash of the checkout's commit, with "+" where tracked files differ; empty without git."""
    found = printed("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    status = "git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks"
    changed = found and printed(*status)
    return found + ("+" if changed else "")


def printed(*command: str) -> str:
    """Return what a program prints; empty where it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
