"""Run Python in a new process."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from recipes.errors import RecipesError


def run_python(arguments: Sequence[str], environment: Mapping[str, str], failed: RecipesError) -> None:
    """Run Python with these arguments, and with these environment variables added to those of this process.

    Raises:
        RecipesError: If the process fails; the message is `failed` with the exit code and the end of the error output.
    """
    command = [sys.executable, "-P", *arguments]  # -P: files in the working directory hide no module
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        end = "\n".join(done.stderr.strip().splitlines()[-4:])
        text = f"{failed} (exit code {done.returncode}): {end}"
        raise type(failed)(text, code=failed.code, exit_code=done.returncode)
