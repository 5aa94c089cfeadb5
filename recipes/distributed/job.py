"""Read the workers of a job on several hosts from TF_CONFIG."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from recipes.core.addresses import port_of
from recipes.errors import ClusterError

_EXAMPLE = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Job:
    """Hold the addresses of a job's workers, and the number of this process.

    Attributes:
        addresses: host:port of all workers; a chief comes first.
        number: Index of this worker in `addresses`.
    """

    addresses: tuple[str, ...]
    number: int


def job_of(environment: Mapping[str, str] = os.environ) -> Job | None:
    """Return the job that TF_CONFIG describes; None if it names no other worker.

    Raises:
        ClusterError: If TF_CONFIG is malformed.
    """
    text = environment.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _malformed(text, f"is not JSON ({error})", "json") from None
    cluster, task = (config.get(name) if isinstance(config, dict) else None for name in ("cluster", "task"))
    if cluster is None and isinstance(config, dict) and not task:
        return None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _malformed(text, "has no cluster or no task", "incomplete")
    chiefs, workers = _addresses(text, cluster)
    kind, index = task.get("type"), task.get("index")
    group = chiefs if kind == "chief" else workers if kind == "worker" else []
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(group):
        raise _malformed(text, f"says that this is {kind} {index}, which is not in its cluster", "task")
    addresses = (*chiefs, *workers)
    return Job(addresses, index + (len(chiefs) if kind == "worker" else 0)) if len(addresses) > 1 else None


def _addresses(text: str, cluster: dict) -> tuple[list[str], list[str]]:
    """Return the checked addresses of the chief and of the workers."""
    if unknown := sorted(set(cluster) - {"chief", "worker"}):
        raise _malformed(text, f"has {unknown} in its cluster; only a chief and workers train", "roles")
    chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
    if not isinstance(chiefs, list) or not isinstance(workers, list) or len(chiefs) > 1:
        raise _malformed(text, "has no list of workers", "workers")
    for address in (*chiefs, *workers):
        if port_of(address) is None:
            raise _malformed(text, f"has the address {address!r}, which is not host:port", "address")
    if len({*chiefs, *workers}) < len(chiefs) + len(workers):
        raise _malformed(text, "has one address twice", "repeated_address")
    return chiefs, workers


def _malformed(text: str, problem: str, code: str) -> ClusterError:
    return ClusterError(
        f"TF_CONFIG {problem}; expected for example {_EXAMPLE}, got {text[:500]}", code=f"cluster.tf_config.{code}"
    )


def leads() -> bool:
    """Return whether this process writes the output, as the only process or as worker 0."""
    job = job_of()
    return job is None or job.number == 0
