"""What becomes of an event after an attempt to deliver it: done, tried again, given up, or the target is gone. Pure."""

import random
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from controlplane.schedules.policy import DEFAULT_MAX_AGE_S, DEFAULT_MAX_RETRIES

__all__ = ["Backoff", "Outcome", "RetryPolicy", "Verdict", "retry_after", "retry_policy", "verdict_of_status"]

#: Answers that say that this very event is no good, so that a repetition can't be better. Other 4xx may be mended at
#: the endpoint: a missing path or a wrong password is no reason to lose events.
_REFUSALS: Final = frozenset({400, 406, 411, 413, 414, 415, 422, 431, 451})
_GONE: Final = 410


class Verdict(Enum):
    """What an attempt came to."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"  #: trying this event again can't help
    GONE = "gone"  #: the endpoint wants no more events


class Outcome(NamedTuple):
    """An attempt's end. `problem`: why it wasn't delivered; `retry_after_s`: what the endpoint asks to be spared."""

    verdict: Verdict
    problem: str = ""
    retry_after_s: float | None = None


class RetryPolicy(NamedTuple):
    """A target's RetryPolicy, with AWS's defaults."""

    max_retries: int
    max_age_s: float


class Backoff(NamedTuple):
    """Exponential backoff with full jitter. At `cap_s`, 185 retries take about a day."""

    base_s: float = 1.0
    cap_s: float = 900.0

    def delay(self, attempts: int, source: random.Random) -> float:
        """Return the seconds to wait after the attempt that is number `attempts`, from 1."""
        return source.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempts, 30)))


def retry_policy(target: Mapping[str, Any]) -> RetryPolicy:
    """Return a target's policy."""
    given = target.get("RetryPolicy") or {}
    return RetryPolicy(
        given.get("MaximumRetryAttempts", DEFAULT_MAX_RETRIES),
        given.get("MaximumEventAgeInSeconds", DEFAULT_MAX_AGE_S),
    )


def verdict_of_status(status: int) -> Verdict:
    """Return what an HTTP status means."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == _GONE:
        return Verdict.GONE
    return Verdict.REFUSED if status in _REFUSALS else Verdict.RETRY


def retry_after(header: str, now: float) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from `now` on; None if there is nothing to read."""
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
