"""docs/performance.md has every benchmark."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_benchmark_is_in_the_page_with_its_command():
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    there = {path.name for path in (ROOT / "scripts").glob("benchmark_*.py")}
    assert len(there) > 10
    assert there - set(re.findall(r"python scripts/(benchmark_\w+\.py)", page)) == set()
