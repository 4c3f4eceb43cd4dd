"""The tags by which a standalone task is limited, run again, or kept from running beside others.

They are read when RunTask or StartTask is called: from the request, else from the task definition. Later changes of
tags change nothing for a task that is there. Tasks of services don't heed them.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.api.errors import ClientException
from controlplane.services.isolation import MIN_LOST_AFTER_S
from controlplane.services.timing import LOST_AFTER, STOP_WHEN_ISOLATED

__all__ = [
    "ATTEMPT",
    "EXCLUSIVE",
    "EXCLUSIVE_POLICY",
    "LOST_AFTER",
    "MAX_RETRIES",
    "MAX_TIME_S",
    "RETRIES",
    "RETRY_OF",
    "START_TIMEOUT",
    "STOP_WHEN_ISOLATED",
    "TIMEOUT",
    "WAIT_TIMEOUT",
    "ExclusivePolicy",
    "StandalonePolicy",
    "standalone_policy",
]

_PREFIX: Final = "homeport:"
TIMEOUT: Final = "homeport:timeout"
START_TIMEOUT: Final = "homeport:start-timeout"
WAIT_TIMEOUT: Final = "homeport:wait-timeout"
RETRIES: Final = "homeport:retries"
EXCLUSIVE: Final = "homeport:exclusive"
EXCLUSIVE_POLICY: Final = "homeport:exclusive-policy"
#: Set by the control plane on a task that is another attempt.
ATTEMPT: Final = "homeport:attempt"
RETRY_OF: Final = "homeport:retry-of"

#: 30 days.
MAX_TIME_S: Final = 30 * 86_400
MAX_RETRIES: Final = 10
_DEFAULT_LOST_AFTER_S: Final = 60
#: As for services.
_LOST_AFTER_RANGE_S: Final = (5, 86_400)

_DURATION: Final = re.compile(r"([0-9]{1,7})([smhd]?)")
_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
#: As ECS's own names: a concurrency group is named like a cluster.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")


class ExclusivePolicy(StrEnum):
    """What becomes of a task whose concurrency group is taken."""

    WAIT = "wait"
    SKIP = "skip"
    REPLACE = "replace"


class StandalonePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What the tags ask for. Times in seconds; None: no limit."""

    timeout_s: int | None = None
    start_timeout_s: int | None = None
    wait_timeout_s: int | None = None
    retries: int = 0
    lost_after_s: int = _DEFAULT_LOST_AFTER_S
    stop_when_isolated: bool = False
    exclusive: str = ""
    exclusive_policy: ExclusivePolicy = ExclusivePolicy.WAIT


def standalone_policy(tags: Mapping[str, str]) -> StandalonePolicy | None:
    """Return what tags ask for; None if they ask for nothing that the control plane has to do.

    Raises ClientException, which names the tag and its limits, for a value that can't be used.
    """
    if not any(tag.startswith(_PREFIX) for tag in tags):
        return None
    policy = StandalonePolicy(
        timeout_s=_duration_s(tags, TIMEOUT),
        start_timeout_s=_duration_s(tags, START_TIMEOUT),
        wait_timeout_s=_duration_s(tags, WAIT_TIMEOUT),
        retries=_retries(tags),
        lost_after_s=_duration_s(tags, LOST_AFTER, *_LOST_AFTER_RANGE_S) or _DEFAULT_LOST_AFTER_S,
        stop_when_isolated=_stop_when_isolated(tags),
        exclusive=_group_name(tags),
        exclusive_policy=_exclusive_policy(tags),
    )
    idle = msgspec.structs.replace(
        policy, lost_after_s=_DEFAULT_LOST_AFTER_S, wait_timeout_s=None, exclusive_policy=ExclusivePolicy.WAIT
    )
    return None if idle == StandalonePolicy() else policy


def _duration_s(tags: Mapping[str, str], tag: str, least: int = 1, most: int = MAX_TIME_S) -> int | None:
    text = tags.get(tag)
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not least <= seconds <= most:
        raise ClientException(
            f"Tag {tag} must be a number of seconds from {least} to {most}, or a length of time such as 90s, 10m, 2h"
            f" or 1d within these limits, but was '{text:.50}'."
        )
    return seconds


def _retries(tags: Mapping[str, str]) -> int:
    text = tags.get(RETRIES)
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 2) or int(text) > MAX_RETRIES:
        raise ClientException(f"Tag {RETRIES} must be a number from 0 to {MAX_RETRIES}, but was '{text:.50}'.")
    return int(text)


def _stop_when_isolated(tags: Mapping[str, str]) -> bool:
    text = tags.get(STOP_WHEN_ISOLATED, "false")
    if text not in ("true", "false"):
        raise ClientException(f"Tag {STOP_WHEN_ISOLATED} must be true or false, but was '{text:.50}'.")
    lost_after_s = _duration_s(tags, LOST_AFTER, *_LOST_AFTER_RANGE_S) or _DEFAULT_LOST_AFTER_S
    if text == "true" and lost_after_s < MIN_LOST_AFTER_S:
        raise ClientException(
            f"Tag {STOP_WHEN_ISOLATED} needs a {LOST_AFTER} of at least {MIN_LOST_AFTER_S:.0f} seconds, since a host"
            f" must notice that it is isolated and stop the task before then, but {LOST_AFTER} was {lost_after_s}."
        )
    return text == "true"


def _group_name(tags: Mapping[str, str]) -> str:
    name = tags.get(EXCLUSIVE)
    if name is None:
        return ""
    if not _NAME.fullmatch(name):
        raise ClientException(
            f"Tag {EXCLUSIVE} must be a name of 1 to 255 letters, digits, hyphens and underscores,"
            f" but was '{name:.50}'."
        )
    return name


def _exclusive_policy(tags: Mapping[str, str]) -> ExclusivePolicy:
    text = tags.get(EXCLUSIVE_POLICY)
    if text is None:
        return ExclusivePolicy.WAIT
    if text not in tuple(ExclusivePolicy):
        raise ClientException(f"Tag {EXCLUSIVE_POLICY} must be {', '.join(ExclusivePolicy)}, but was '{text:.50}'.")
    if not tags.get(EXCLUSIVE):
        raise ClientException(f"Tag {EXCLUSIVE_POLICY} needs the tag {EXCLUSIVE}, the name of the group it is for.")
    return ExclusivePolicy(text)
