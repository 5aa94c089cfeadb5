"""Network addresses, host:port."""

import re


def port_of(address) -> int | None:
    """The port of host:port, name:port or [IPv6]:port; None where it is none of these."""
    told = re.fullmatch(r"(?:[^\s:/,\[\]]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", address if isinstance(address, str) else "")
    return int(told[1]) if told and 0 < int(told[1]) < 2**16 else None
