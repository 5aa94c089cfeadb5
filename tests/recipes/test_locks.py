"""Only one process at a time holds a lock, and one that is killed holds none."""

import os
import subprocess
import sys
from pathlib import Path

from assertions import rejects

from recipes.core.locks import ProcessLock
from recipes.errors import OutputError

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, time
from pathlib import Path
from recipes.core.locks import ProcessLock
lock = ProcessLock(Path(sys.argv[1]))
assert lock.acquire()
lock.write_holder()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_lock_fails_and_names_the_holder(tmp_path):
    first, second = ProcessLock(tmp_path / ".lock"), ProcessLock(tmp_path / ".lock")
    assert first.acquire() and not second.acquire() and second.holder() == "unknown"
    first.write_holder()
    assert second.holder().startswith(f"pid {os.getpid()} on ")
    second.release(delete=True)  # it holds nothing
    assert (tmp_path / ".lock").exists() and not second.acquire()
    first.release()
    assert second.acquire()
    second.release(delete=True)
    assert not list(tmp_path.iterdir())


def test_a_killed_process_releases_its_lock(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD, tmp_path / ".lock"]
    lock = ProcessLock(tmp_path / ".lock")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert not lock.acquire() and lock.holder().startswith(f"pid {other.pid} on ")
        other.kill()
    assert (tmp_path / ".lock").exists() and lock.acquire()
    lock.release()


def test_a_folder_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with rejects(OutputError, "output.cannot_lock"):
        ProcessLock(tmp_path / "file" / ".lock").acquire()
