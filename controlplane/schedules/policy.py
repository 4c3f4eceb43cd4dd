"""How a target's occurrences are handled: retries as its RetryPolicy says, overlap and missed times as tags say.

The tags `homeport:overlap` and `homeport:missed` may be among the target's EcsParameters.Tags, which go to its tasks;
else on the rule, or on the schedule's group (schedules have no tags of their own, as in AWS); the first found counts.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

__all__ = [
    "DEFAULT_MAX_AGE_S",
    "DEFAULT_MAX_RETRIES",
    "MISSED",
    "OVERLAP",
    "MissedPolicy",
    "OverlapPolicy",
    "TargetPolicy",
    "policy_of",
    "tags_of_target",
]

OVERLAP: Final = "homeport:overlap"
MISSED: Final = "homeport:missed"

#: AWS's own defaults, which are also the maxima.
DEFAULT_MAX_AGE_S: Final = 86400
DEFAULT_MAX_RETRIES: Final = 185


class OverlapPolicy(StrEnum):
    """What becomes of an occurrence while tasks of an earlier one are running."""

    ALLOW = "allow"  #: it runs beside them, as in AWS
    SKIP = "skip"  #: it doesn't run
    REPLACE = "replace"  #: they are stopped, then it runs


class MissedPolicy(StrEnum):
    """What becomes of occurrences whose time passed while the control plane wasn't running."""

    RUN_ONCE = "run-once"  #: the last of them runs, if it is no older than the target's MaximumEventAgeInSeconds
    SKIP = "skip"


class TargetPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The policies of one target."""

    overlap: OverlapPolicy = OverlapPolicy.ALLOW
    missed: MissedPolicy = MissedPolicy.RUN_ONCE
    max_age_s: float = DEFAULT_MAX_AGE_S
    max_retries: int = DEFAULT_MAX_RETRIES
    #: How many tasks one occurrence starts.
    count: int = 1
    dead_letter: str = ""


def policy_of(target: Mapping[str, Any], inherited: Mapping[str, str]) -> TargetPolicy:
    """Return a target's policies. `inherited`: the tags of the rule or group.

    Raises ValueError, naming the tag, for a value that a policy doesn't have.
    """
    tags = {**inherited, **tags_of_target(target)}
    retry = target.get("RetryPolicy") or {}
    return TargetPolicy(
        overlap=OverlapPolicy(_checked(tags, OVERLAP, OverlapPolicy) or OverlapPolicy.ALLOW),
        missed=MissedPolicy(_checked(tags, MISSED, MissedPolicy) or MissedPolicy.RUN_ONCE),
        max_age_s=retry.get("MaximumEventAgeInSeconds", DEFAULT_MAX_AGE_S),
        max_retries=retry.get("MaximumRetryAttempts", DEFAULT_MAX_RETRIES),
        count=(target.get("EcsParameters") or {}).get("TaskCount", 1),
        dead_letter=(target.get("DeadLetterConfig") or {}).get("Arn", ""),
    )


def _checked(tags: Mapping[str, str], name: str, values: Iterable[StrEnum]) -> str:
    value = tags.get(name, "")
    known = [str(each) for each in values]
    if value and value not in known:
        raise ValueError(f"Tag {name} must be one of {', '.join(known)}, but was '{value:.50}'.")
    return value


def tags_of_target(target: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that a target gives its tasks.

    Both services have `[{"Key": K, "Value": V}]`. EventBridge Scheduler's model has maps there, so clients write
    `{"key": K, "value": V}` and `{K: V}` too.
    """
    found: dict[str, str] = {}
    for entry in (target.get("EcsParameters") or {}).get("Tags") or ():
        lower = {name.lower(): value for name, value in entry.items()}
        if "key" in lower and set(lower) <= {"key", "value"}:
            found[lower["key"]] = lower.get("value", "")
        else:
            found.update(entry)
    return found
