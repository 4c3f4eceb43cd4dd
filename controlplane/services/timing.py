"""The tags by which a service says what ECS has no member for (`homeport:*`): their ranges, and their values. Pure.

A tag is checked when it is put on a service; a value that isn't usable all the same counts as absent, so that the
reconciler never stumbles over one.
"""

from collections.abc import Mapping
from typing import Final

from controlplane.services.model import Timing

__all__ = [
    "LOST_AFTER",
    "MIN_HEALTHY_TIME",
    "PROGRESS_DEADLINE",
    "REBALANCE",
    "STOP_WHEN_ISOLATED",
    "service_tag_problem",
    "timing_of",
    "wants_rebalance",
]

LOST_AFTER: Final = "homeport:lost-after"
MIN_HEALTHY_TIME: Final = "homeport:min-healthy-time"
PROGRESS_DEADLINE: Final = "homeport:progress-deadline"
REBALANCE: Final = "homeport:rebalance"
STOP_WHEN_ISOLATED: Final = "homeport:stop-when-isolated"

#: Tag -> least and most seconds.
_SECONDS: Final = {
    LOST_AFTER: (5, 86_400),
    MIN_HEALTHY_TIME: (0, 3_600),
    PROGRESS_DEADLINE: (10, 86_400),
}
_SWITCHES: Final = (REBALANCE, STOP_WHEN_ISOLATED)


def timing_of(tags: Mapping[str, str]) -> Timing:
    """Return a service's times: those its tags set, else the defaults."""
    default = Timing()
    return Timing(
        lost_after_s=_seconds(tags, LOST_AFTER, default.lost_after_s),
        min_healthy_s=_seconds(tags, MIN_HEALTHY_TIME, default.min_healthy_s),
        progress_deadline_s=_seconds(tags, PROGRESS_DEADLINE, default.progress_deadline_s),
    )


def wants_rebalance(tags: Mapping[str, str]) -> bool:
    """Tell whether a service's tasks may be moved to hosts that join or return."""
    return tags.get(REBALANCE) == "true"


def service_tag_problem(tags: Mapping[str, str]) -> str | None:
    """Say what is wrong with the first of a service's `homeport:*` tags that can't be used; None if all can."""
    for tag, (least, most) in _SECONDS.items():
        if tag in tags and not _is_within(tags[tag], least, most):
            return f"Tag {tag} must be a number of seconds from {least} to {most}, but was '{tags[tag]:.50}'."
    for tag in _SWITCHES:
        if tags.get(tag, "true") not in ("true", "false"):
            return f"Tag {tag} must be true or false, but was '{tags[tag]:.50}'."
    return None


def _seconds(tags: Mapping[str, str], tag: str, default: float) -> float:
    text = tags.get(tag)
    return float(text) if text is not None and _is_within(text, *_SECONDS[tag]) else default


def _is_within(text: str, least: int, most: int) -> bool:
    # The length first: int() of a very long number takes long.
    return text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most
