"""CPU and memory of a task as ECS takes them: "1024" or "1 vCPU", "2048" or "2 GB"."""

import re
from typing import Final

from controlplane.api.errors import ClientException

__all__ = ["cpu_units", "memory_mib"]

_CPU: Final = re.compile(r"\s*(?P<units>\d+)\s*|\s*(?P<vcpus>\d*\.?\d+)\s*vcpus?\s*", re.IGNORECASE)
_MEMORY: Final = re.compile(r"\s*(?P<mib>\d+)\s*(mb)?\s*|\s*(?P<gb>\d*\.?\d+)\s*gb\s*", re.IGNORECASE)


def cpu_units(text: str) -> int:
    """Read a task's cpu. Raises ClientException, naming what would be accepted."""
    match = _CPU.fullmatch(text)
    units = 0 if match is None else int(match["units"] or round(float(match["vcpus"]) * 1024))
    if units <= 0:
        raise ClientException(f"Invalid 'cpu' setting for task: {text!r}. Use CPU units (1024) or vCPUs (1 vCPU).")
    return units


def memory_mib(text: str) -> int:
    """Read a task's memory. Raises ClientException, naming what would be accepted."""
    match = _MEMORY.fullmatch(text)
    mib = 0 if match is None else int(match["mib"] or round(float(match["gb"]) * 1024))
    if mib <= 0:
        raise ClientException(f"Invalid 'memory' setting for task: {text!r}. Use MiB (2048) or GB (2 GB).")
    return mib
