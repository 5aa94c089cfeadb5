"""Network addresses of the form host:port."""

import re

INPUT_PORT = 5050  # default port of an input worker, which also uses the port after it
_ADDRESS = re.compile(r"(?:[^\s:/,\[\]]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})")


def port_of(address: object) -> int | None:
    """Return the port of host:port, name:port or [IPv6]:port; return None for any other text."""
    match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return int(match[1]) if match and 0 < int(match[1]) < 2**16 else None
