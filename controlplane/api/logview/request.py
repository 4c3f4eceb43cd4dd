"""What a request for logs asks for, checked."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, cast

import msgspec

from controlplane.api.errors import InvalidParameterException
from controlplane.api.homeport_lookup import find_service_anywhere, matching_tasks, only
from controlplane.api.logview.model import FAR_S, Sieve, Span, Standing, Wanted
from controlplane.api.logview.subject import OneTask, ServiceTasks, Subject
from controlplane.context import Context
from controlplane.regexes import BadRegex, compile_regex
from controlplane.state.records import TaskRecord
from homeport.status import TaskStatus

__all__ = ["parse"]

#: Characters of a pattern, and the memory RE2 may take for it.
_MAX_PATTERN: Final = 1024
_PATTERN_BYTES: Final = 8 * 1024 * 1024
_standing: Final = msgspec.json.Decoder(Standing)


async def parse(context: Context, query: Mapping[str, str], body: bytes) -> tuple[Subject, Wanted]:
    """Return whose logs are wanted, and how. Raises ApiError."""
    wanted = Wanted(
        container=query.get("container") or None,
        follow=_flag(query, "follow"),
        tail=_count(query.get("tail")),
        span=Span(since=_seconds(query, "since"), until=_seconds(query, "until")),
        sieve=Sieve(_pattern(query.get("grep", "")), _stream(query.get("stream"))),
        everything=_flag(query, "all"),
        resumable=_flag(query, "resumable"),
        resume=_resume(body),
    )
    if wanted.follow and wanted.span.until is not None:
        raise InvalidParameterException("until can't be given with follow: what is to come has no end.")
    if "service" in query:
        service = find_service_anywhere(context, query["service"], query.get("cluster"))
        subject: Subject = ServiceTasks(context, service)
        _check_container(subject.present(), wanted.container)
        return subject, wanted
    reference = query.get("task", "")
    task = only([task for task, _ in await matching_tasks(context, reference)], reference)
    if task.instance_id is None and (not wanted.follow or task.status is TaskStatus.STOPPED):
        raise InvalidParameterException(f"The task {task.id} has no log: it isn't on a host yet.")
    _check_container([task], wanted.container)
    return OneTask(task), wanted


def _check_container(tasks: Sequence[TaskRecord], name: str | None) -> None:
    names = dict.fromkeys(container.name for task in tasks for container in task.spec.containers)
    if name is not None and names and name not in names:
        raise InvalidParameterException(f"The task has no container '{name:.100}'; it has: {', '.join(names)}.")


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "false") == "true"


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidParameterException(f"tail must be a number of lines from 0 to 999999999, but was '{text:.100}'.")
    return int(text)


def _seconds(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or abs(seconds) > FAR_S:
        raise InvalidParameterException(f"{name} must be a time in epoch seconds, but was '{text:.100}'.")
    return seconds


def _stream(text: str | None) -> Literal["stdout", "stderr"] | None:
    if text not in (None, "stdout", "stderr"):
        raise InvalidParameterException(f"stream must be stdout or stderr, but was '{text:.100}'.")
    return cast('Literal["stdout", "stderr"] | None', text)


def _pattern(text: str) -> object | None:
    if not text:
        return None
    if len(text) > _MAX_PATTERN:
        raise InvalidParameterException(f"grep must be at most {_MAX_PATTERN} characters long.")
    try:
        pattern: object = compile_regex(text, max_bytes=_PATTERN_BYTES)
    except BadRegex as error:
        raise InvalidParameterException(
            f"grep must be a regular expression (RE2), but was '{text:.100}': {error}."
        ) from error
    return pattern


def _resume(body: bytes) -> Standing | None:
    if not body:
        return None
    try:
        return _standing.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidParameterException(f"The body doesn't say where to go on: {error}.") from error
