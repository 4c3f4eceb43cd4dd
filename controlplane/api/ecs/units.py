"""CPU and memory of a task as ECS takes them: "1024" or "1 vCPU", "2048" or "2 GB"; and a container's GPUs."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from controlplane.api.errors import ClientException

__all__ = ["cpu_units", "gpus_of", "memory_mib"]

_CPU: Final = re.compile(r"\s*(?P<units>\d+)\s*|\s*(?P<vcpus>\d*\.?\d+)\s*vcpus?\s*", re.IGNORECASE)
_MAX_GPUS: Final = 1024
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


def gpus_of(requirements: Iterable[Mapping[str, Any]] | None, container: str) -> int:
    """Return how many GPUs a container's `resourceRequirements` ask for; other types than GPU are passed over.

    Raises ClientException for a value that is no number of GPUs, and if several entries ask for GPUs.
    """
    values = [item.get("value") or "" for item in requirements or () if item.get("type") == "GPU"]
    if len(values) > 1:
        raise ClientException(f"resourceRequirements of container '{container}': type GPU can be given once.")
    if values and not (values[0].isascii() and values[0].isdigit() and 0 < int(values[0]) <= _MAX_GPUS):
        raise ClientException(
            f"Invalid 'resourceRequirements' setting for container '{container}'. The value of type GPU must be a"
            f" number of GPUs from 1 to {_MAX_GPUS}, but is '{values[0]:.50}'."
        )
    return int(values[0]) if values else 0
