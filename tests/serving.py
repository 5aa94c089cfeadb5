"""A server under test: `recipes serve` in its own process."""

import base64
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from urllib import error, request


@contextmanager
def served(directory, *flags):
    """(address, process) of a server of `directory` on a free port."""
    command = [sys.executable, "-u", "-m", "recipes", "serve", str(directory), "--port", "0", *flags]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = [process.stdout.readline() for _ in range(3)]
            found = re.search(r"page: (http://\S+)/", "".join(lines))
            assert found, lines
            yield found.group(1), process
        finally:
            process.terminate()
            process.wait(60)


def post(address, body, path="/v1/models/flowers:predict"):
    """(status, headers, JSON) of a POST of bytes, or of anything as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return get(request.Request(address + path, content, {"Content-Type": "application/json"}))


def get(what):
    try:
        with request.urlopen(what, timeout=60) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except error.HTTPError as answer:
        return answer.code, dict(answer.headers), json.load(answer)


def b64(*contents: bytes) -> list[dict]:
    return [{"b64": base64.b64encode(content).decode()} for content in contents]
