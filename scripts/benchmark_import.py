"""What `import recipes` costs beside `import tensorflow, keras`. To reach: at most 1.15 times.

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

SIDES = ("import tensorflow, keras", "import recipes")


def seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    for code in SIDES:
        seconds(code)  # fills the disk cache
    taken = [[seconds(code) for code in SIDES] for _ in range(runs)]
    medians = [statistics.median(column) for column in zip(*taken, strict=True)]
    for code, median in zip(SIDES, medians, strict=True):
        print(f"{median:6.2f} s  {code}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"ratio {medians[1] / medians[0]:.2f}  ({machine})")


if __name__ == "__main__":
    main()
