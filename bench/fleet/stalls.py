"""How long the control plane's event loop has stood still, from its metric. Pure."""

import math
import re
from collections.abc import Mapping
from typing import Final

from bench.common import Json

__all__ = ["read_delays", "stalls_since"]

_BUCKET: Final = re.compile(r'^homeport_event_loop_delay_seconds_bucket\{le="([^"]+)"\} (\S+)', re.M)
#: Longer than this is a stall: requests and heartbeats wait for it.
_STALL_S: Final = 0.1


def read_delays(exposition: str) -> dict[float, float]:
    """Return the metric's buckets: upper bound in seconds -> delays up to that."""
    return {float(bound): float(count) for bound, count in _BUCKET.findall(exposition)}


def stalls_since(before: Mapping[float, float], now: Mapping[float, float]) -> Json:
    """Return the longest delay since then, as the bound of its bucket, and how many were stalls."""
    grown = {bound: now[bound] - before.get(bound, 0.0) for bound in sorted(now)}
    total = grown[math.inf]
    longest = next(bound for bound, count in grown.items() if count == total)
    return {
        "longest_delay_ms_up_to": None if math.isinf(longest) else round(longest * 1000),
        "stalls_over_100_ms": round(total - grown[_STALL_S]),
    }
