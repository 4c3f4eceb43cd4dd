"""The GPUs of this host, by NVIDIA's management library; none where it, its driver, or a GPU isn't there."""

import importlib
from typing import Any, Final

import structlog

__all__ = ["read_gpu_ids"]

_log: Final = structlog.get_logger(__name__)

#: Of the package nvidia-ml-py, the extra `gpu`.
_LIBRARY: Final = "pynvml"


def read_gpu_ids(library: str = _LIBRARY) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs (`GPU-...`), in the driver's order. Blocks shortly."""
    try:
        nvml: Any = importlib.import_module(library)
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        _log.debug("no GPUs", reason=str(error))
        return ()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles)
    except nvml.NVMLError as error:
        _log.warning("the host's GPUs can't be read; it has none for tasks", reason=str(error))
        return ()
    finally:
        nvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    """Older versions of the library give bytes."""
    return value.decode() if isinstance(value, bytes) else value
