"""Write benchmarks/RESULTS.md from benchmarks/rows/*.jsonl and the hand-written benchmarks/notes/*.md.

    python scripts/make_results.py            # writes the page
    python scripts/make_results.py --check    # exits with 1 where the page is not what the rows and notes make

One section a benchmark: the commands, a table of its rows (see measurements.py; the newest of each name counts), then
its note word for word.
"""

import argparse
import sys
from pathlib import Path

from measurements import ROOT, Row, histories, number, read

FOLDER = ROOT / "benchmarks"
PAGE = FOLDER / "RESULTS.md"
HEAD = """# Results of the benchmarks

`python scripts/make_results.py` writes this page from `benchmarks/rows` and `benchmarks/notes`; do not edit it. A
benchmark adds rows with `--rows benchmarks/rows`. What the figures mean for a user stands in `docs/performance.md`.

- **Verdict**: computed from result and target. "Within the interval" says that the target lies in the result's 95 %
  interval, so that chance may have decided.
- **Limit**: the best result that the hardware or the arithmetic allows, where it is known.
- **State**: a row measured on a busy machine has a meaningful ratio, because both sides took turns, and no meaningful
  absolute time. States that scripts measured give the share of the CPU time that other processes used; the others were
  noted by hand.
- **Unmeasured**: nobody has measured this figure.
"""
COLUMNS = ("what", "result", "target", "verdict", "limit", "details", "date", "machine", "state")


def page(folder: Path = FOLDER) -> str:
    """Return the text of RESULTS.md."""
    found = histories(read(folder / "rows"))
    newest = [same[0] for same in found]
    letters = machine_letters(newest)
    notes = {path.stem: path.read_text("utf-8") for path in sorted((folder / "notes").glob("*.md"))}
    parts = [HEAD, summary(newest), machines(letters)]
    for name in sorted({row.benchmark for row in newest} | set(notes)):
        same = [history for history in found if history[0].benchmark == name]
        parts.append(section(name, same, letters, notes.get(name, "")))
    return "\n".join(parts).rstrip() + "\n"


def machine_letters(rows: list[Row]) -> dict[str, str]:
    """Return description → letter of each machine, in the order of first use."""
    names = dict.fromkeys(str(row.machine) for row in sorted(rows, key=lambda row: (row.date, row.benchmark)))
    return {name: chr(ord("A") + i) if i < 26 else f"M{i + 1}" for i, name in enumerate(names)}


def summary(rows: list[Row]) -> str:
    """Return how many targets were met, and a list of those that were missed and of what is unmeasured."""
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    lines = ["## Targets", "", f"{len(judged) - len(missed)} of {len(judged)} targets are met. Missed:", ""]
    lines += [f"- {row.benchmark}, {row.name}: {shown(row.result, row.unit)}, target {target(row)}" for row in missed]
    if unmeasured := [row for row in rows if row.result is None]:
        lines += ["", "Unmeasured:", "", *(f"- {row.benchmark}, {row.name}" for row in unmeasured)]
    return "\n".join([*lines, ""])


def machines(letters: dict[str, str]) -> str:
    rows = [f"| {letter} | {name} |" for name, letter in letters.items()]
    return "\n".join(["## Machines", "", "| | |", "|---|---|", *rows, ""])


def section(name: str, found: list[list[Row]], letters: dict[str, str], note: str) -> str:
    """Return the section of one benchmark. `found`: histories of its rows, the newest first."""
    lines = [f"## {name}", ""]
    if found:
        commands = dict.fromkeys(history[0].command for history in found)
        lines += [*(f"- `{line}`" if "python " in line else f"- {line}" for line in commands), ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells(same, letters)) + " |" for same in found]
        lines.append("")
    return "\n".join([*lines, note.strip(), ""] if note else lines)


def cells(same: list[Row], letters: dict[str, str]) -> tuple[str, ...]:
    """Return one line of a table: the newest row, with earlier results of the same name among its details."""
    row, *earlier = same
    details = [f"{key}: {number(value) if isinstance(value, int | float) else value}"
               for key, value in row.details.items()]  # fmt: skip
    details += [f"earlier: {result(old)}, {old.date[:10]}" for old in earlier]
    return (
        row.name, result(row), target(row), verdict(row), limit(row), "; ".join(details),
        row.date[:10], letters[str(row.machine)], str(row.state),
    )  # fmt: skip


def result(row: Row) -> str:
    """Return the result with its interval."""
    return shown(row.result, row.unit) + (" ({} to {})".format(*map(number, row.interval)) if row.interval else "")


def shown(value: float | None, unit: str) -> str:
    return "**unmeasured**" if value is None else f"{number(value)} {unit}".strip()


def target(row: Row) -> str:
    """Return the target's number and its words."""
    if row.goal is None:
        return row.target
    sign = "≤" if row.at_least is None else "≥"
    return f"{sign} {shown(row.goal, row.unit)}" + (f" ({row.target})" if row.target else "")


def verdict(row: Row) -> str:
    """Return whether the numbers meet the target; empty where either is missing."""
    if row.met is None:
        return ""
    chance = row.interval is not None and row.interval[0] <= row.goal <= row.interval[1]
    return ("met" if row.met else "**missed**") + (", within the interval" if chance else "")


def limit(row: Row) -> str:
    """Return the physical limit, and how far the result is from it."""
    if row.limit is None:
        return row.limit_text
    far = f"the result is {number(row.result / row.limit)} times this" if row.result is not None and row.limit else ""
    return "; ".join(filter(None, [shown(row.limit, row.unit), row.limit_text, far]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is out of date")
    text = page()
    if parser.parse_args(arguments).check:
        current = PAGE.exists() and PAGE.read_text("utf-8") == text
        print("" if current else f"{PAGE.relative_to(ROOT)} is out of date: run python scripts/make_results.py", end="")
        return 0 if current else 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {text.count(chr(10))} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
