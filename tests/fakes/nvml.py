"""NVIDIA's management library as `agent.gpus` uses it: a machine with `uuids`, or without a driver."""

__all__ = ["NVMLError", "uuids"]

#: The UUIDs of the GPUs, as text or bytes; None: the driver isn't loaded.
uuids: list[str | bytes] | None = None
#: How often it was opened less how often it was closed.
opened = 0


class NVMLError(Exception):
    """Any error of the library."""


def nvmlInit() -> None:
    global opened
    if uuids is None:
        raise NVMLError("Driver Not Loaded")
    opened += 1


def nvmlShutdown() -> None:
    global opened
    opened -= 1


def nvmlDeviceGetCount() -> int:
    assert uuids is not None
    return len(uuids)


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    return index


def nvmlDeviceGetUUID(handle: int) -> str | bytes:
    assert uuids is not None
    if uuids[handle] == "":
        raise NVMLError("GPU is lost")
    return uuids[handle]
