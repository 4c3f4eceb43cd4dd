"""What the log driver `awslogs` of a task definition means here: ship the container's output to this control plane.

Pure. Option names, defaults and rules are those of the ECS agent and of Docker's awslogs driver. `awslogs-region` and
the like, which say where CloudWatch is, are accepted and mean nothing: it is here.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from controlplane.logs.names import check_group_name
from controlplane.regexes import BadRegex, compile_regex
from homeport.spec import LogShipping

__all__ = [
    "AWSLOGS",
    "DEFAULT_RETENTION_DAYS",
    "LogDefaults",
    "awslogs_problems",
    "default_shipping",
    "shipping",
    "shipping_of",
]

Document = Mapping[str, Any]

AWSLOGS: Final = "awslogs"
#: How long the groups are kept that Homeport makes for containers without a logConfiguration.
DEFAULT_RETENTION_DAYS: Final = 7
#: The stream prefix of those containers.
_PREFIX: Final = "homeport"
_MAX_STREAM_PREFIX: Final = 256

_OPTIONS: Final = frozenset(
    {
        "awslogs-create-group",
        "awslogs-credentials-endpoint",
        "awslogs-datetime-format",
        "awslogs-endpoint",
        "awslogs-format",
        "awslogs-group",
        "awslogs-multiline-pattern",
        "awslogs-region",
        "awslogs-stream-prefix",
        "max-buffer-size",
        "mode",
    }
)
_MODES: Final = ("blocking", "non-blocking")
_SIZE: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]+)? ?[kKmMgG]?[iI]?[bB]?")
_BOOLEANS: Final = frozenset({"true", "false", "1", "0", "t", "f", "True", "False", "TRUE", "FALSE", "T", "F"})

#: What strftime's codes stand for, as far as Docker's awslogs driver knows them.
_STRFTIME: Final = {
    "a": "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "A": "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
    "w": "[0-6]",
    "d": "(?:0[1-9]|[12][0-9]|3[01])",
    "b": "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
    "B": "(?:January|February|March|April|May|June|July|August|September|October|November|December)",
    "m": "(?:0[1-9]|1[0-2])",
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "H": "(?:[01][0-9]|2[0-3])",
    "I": "(?:0[0-9]|1[0-2])",
    "p": "[AP]M",
    "M": "[0-5][0-9]",
    "S": "[0-5][0-9]",
    "f": "[0-9]{6}",
    "L": r"\.[0-9]{3}",
    "z": "[+-][0-9]{4}",
    "Z": "[A-Z]{1,4}T",
    "j": "[0-3][0-9]{2}",
}
_CODE: Final = re.compile("%([" + "".join(_STRFTIME) + "])")


class LogDefaults(NamedTuple):
    """What holds where a definition is silent. `collect`: ship containers without a logConfiguration, too."""

    collect: bool = True
    #: The account setting defaultLogDriverMode.
    mode: Literal["blocking", "non-blocking"] = "blocking"


def shipping_of(container: Document, cluster: str, family: str, defaults: LogDefaults) -> LogShipping | None:
    """Return where a container of a definition is shipped to; None if it is the Engine's business."""
    log = container.get("logConfiguration")
    if not log:
        return default_shipping(cluster, family, defaults)
    return shipping(log, defaults) if log["logDriver"] == AWSLOGS else None


def shipping(log: Document, defaults: LogDefaults) -> LogShipping:
    """Return what a logConfiguration with the driver awslogs asks for; it has passed `awslogs_problems`."""
    options: Mapping[str, str] = log.get("options") or {}
    return LogShipping(
        group=options["awslogs-group"],
        stream_prefix=options.get("awslogs-stream-prefix", ""),
        create_group=options.get("awslogs-create-group", "")[:1] in ("t", "T", "1"),
        multiline_pattern=_pattern(options),
        mode="non-blocking" if options.get("mode", defaults.mode) == "non-blocking" else "blocking",
        max_buffer_size=options.get("max-buffer-size", LogShipping(group="").max_buffer_size),
    )


def default_shipping(cluster: str, family: str, defaults: LogDefaults) -> LogShipping | None:
    """Return where the output of a container without a logConfiguration goes; None if it stays on its host."""
    if not defaults.collect:
        return None
    return LogShipping(
        group=f"/homeport/{cluster}/{family}",
        stream_prefix=_PREFIX,
        create_group=True,
        retention_days=DEFAULT_RETENTION_DAYS,
        mode=defaults.mode,
    )


def awslogs_problems(log: Document) -> Iterator[str]:
    """Yield what is wrong with the options of a logConfiguration with the driver awslogs."""
    options: Mapping[str, str] = log.get("options") or {}
    if missing := [name for name in ("awslogs-group", "awslogs-region") if not options.get(name)]:
        yield f"Log driver awslogs requires options: {', '.join(missing)}"
        return
    if unknown := sorted(options.keys() - _OPTIONS):
        yield f"Log driver awslogs has no option {unknown[0]:.100}; it has: {', '.join(sorted(_OPTIONS))}"
    if problem := check_group_name(options["awslogs-group"]):
        yield f"awslogs-group {problem}"
    prefix = options.get("awslogs-stream-prefix", "")
    if len(prefix) > _MAX_STREAM_PREFIX or ":" in prefix or "*" in prefix:
        yield f"awslogs-stream-prefix must have at most {_MAX_STREAM_PREFIX} characters and no ':' or '*'"
    if options.get("awslogs-create-group", "true") not in _BOOLEANS:
        yield "awslogs-create-group must be true or false"
    if options.get("mode", "blocking") not in _MODES:
        yield f"mode must be one of: {', '.join(_MODES)}"
    if not _SIZE.fullmatch(options.get("max-buffer-size", "1m")):
        yield "max-buffer-size must be a size like 10m"
    yield from _pattern_problems(options)


def _pattern_problems(options: Mapping[str, str]) -> Iterator[str]:
    if "awslogs-datetime-format" in options and "awslogs-multiline-pattern" in options:
        yield "awslogs-datetime-format and awslogs-multiline-pattern can't be given together"
        return
    try:
        compile_regex(_pattern(options))
    except BadRegex as error:
        name = "awslogs-multiline-pattern" if "awslogs-multiline-pattern" in options else "awslogs-datetime-format"
        yield f"{name} isn't a regular expression (RE2 syntax): {error}"


def _pattern(options: Mapping[str, str]) -> str:
    """Return what begins an event: the pattern, or what a datetime format matches; "" if every line is an event."""
    if pattern := options.get("awslogs-multiline-pattern", ""):
        return pattern
    # As with Docker's driver, the rest of the format is part of the expression.
    return _CODE.sub(lambda code: _STRFTIME[code[1]], options.get("awslogs-datetime-format", ""))
