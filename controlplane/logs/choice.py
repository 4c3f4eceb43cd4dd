"""Which log store a setting means."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from controlplane.logs.api import LogStore
from controlplane.logs.cataloged import StoreObserver
from controlplane.logs.loki.address import parse_address
from controlplane.logs.loki.store import LokiLogStore
from controlplane.logs.store import SegmentLogStore
from homeport.clock import Clock

__all__ = ["open_log_store"]


def open_log_store(
    root: Path, clock: Clock, *, url: str | None, limit_bytes: int, observe: StoreObserver | None = None
) -> AbstractAsyncContextManager[LogStore]:
    """Open the store that `url` means, None for the one on this machine; each has its own part of `root`.

    Raises ConfigurationError for a URL that can't be used, and as the stores do when they are entered.
    """
    if url is None:
        return SegmentLogStore.open(root, clock, limit_bytes=limit_bytes, observe=observe)
    return LokiLogStore.open(root / "loki", parse_address(url), clock, observe=observe)
