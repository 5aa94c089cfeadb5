"""What `import recipes` costs beside `import tensorflow, keras`. Target: at most 1.15 times.

    python scripts/benchmark_import.py [--runs 7]

Fresh processes in turn, medians, wall-clock seconds.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measurements import Recorder, add_option

SIDES = ("import tensorflow, keras", "import recipes")


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    add_option(parser)
    asked = parser.parse_args()
    runs, rows = asked.runs, Recorder("import", asked.rows)
    for code in SIDES:
        seconds(code)  # fills the disk cache
    taken = [[seconds(code) for code in SIDES] for _ in range(runs)]
    medians = [statistics.median(column) for column in zip(*taken, strict=True)]
    for code, median in zip(SIDES, medians, strict=True):
        print(f"{median:6.2f} s  {code}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"ratio {medians[1] / medians[0]:.2f}  ({machine})")
    limit = {"limit": 1.0, "limit_text": "`recipes` imports both"}
    details = {f"{code}, s": median for code, median in zip(SIDES, medians, strict=True)}
    name = f"{SIDES[1]} / {SIDES[0]}"
    rows.add(name, medians[1] / medians[0], "×", at_most=1.15, details=details, **limit)


if __name__ == "__main__":
    main()
