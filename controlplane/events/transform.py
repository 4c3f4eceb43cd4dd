"""What a target is given of an event: the event, or what its Input, InputPath or InputTransformer makes of it. Pure.

Paths are EventBridge's part of JSONPath: `$`, `.name`, `['name']`, `[0]`, `[*]`. In an InputTemplate `<name>` stands
for a variable of the InputPathsMap or one of AWS's own (`aws.events.rule-arn`, `.rule-name`, `.event`, `.event.json`,
`.event.ingestion-time`): inside a JSON string as text, escaped; elsewhere as a JSON value. A variable whose path leads
nowhere is an empty text, or null.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from homeport.errors import HomeportError

__all__ = ["BadInput", "Missing", "check_input", "follow", "input_of", "parse_path"]

_STEP: Final = re.compile(r"\.(?P<name>[\w/-]+)|\[(?P<index>\d{1,6}|\*)\]|\['(?P<quoted>[^']+)'\]")
_VARIABLE: Final = re.compile(r"<([A-Za-z0-9._-]+)>")
_OWN: Final = frozenset(
    {
        "aws.events.rule-arn",
        "aws.events.rule-name",
        "aws.events.event",
        "aws.events.event.json",
        "aws.events.event.ingestion-time",
    }
)
_FORMS: Final = ("Input", "InputPath", "InputTransformer")

#: A step of a path: a name, an index, or None for each member of a list.
Step = str | int | None


class BadInput(HomeportError):
    """A target's Input, InputPath or InputTransformer can't be used; the text says why."""


class Missing:
    """What a path leads to that leads nowhere."""


@lru_cache(maxsize=4096)
def parse_path(text: str) -> tuple[Step, ...]:
    """Read a path. Raises BadInput."""
    if not text.startswith("$"):
        raise BadInput(f"'{text:.256}' is not a path: it must begin with $")
    steps: list[Step] = []
    place = 1
    while place < len(text):
        step = _STEP.match(text, place)
        if step is None:
            raise BadInput(
                f"'{text:.256}' is not a path that is supported, from '{text[place:]:.50}' on: there are .name,"
                " ['name'], [0] and [*]"
            )
        index = step["index"]
        if index is None:
            steps.append(step["name"] or step["quoted"])
        else:
            steps.append(None if index == "*" else int(index))
        place = step.end()
    return tuple(steps)


def follow(path: str, event: Any) -> Any:
    """Return what a path leads to in an event; Missing if it leads nowhere. Raises BadInput for what is no path."""
    return _follow(parse_path(path), event)


def _follow(steps: tuple[Step, ...], value: Any) -> Any:
    for number, step in enumerate(steps):
        if step is None:
            if not isinstance(value, list):
                return Missing
            found = [_follow(steps[number + 1 :], each) for each in value]
            return [each for each in found if each is not Missing]
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return Missing
            value = value[step]
        else:
            if not isinstance(value, Mapping) or step not in value:
                return Missing
            value = value[step]
    return value


def check_input(target: Mapping[str, Any]) -> None:
    """Raise BadInput if what a target is to be given could never be made."""
    given = [name for name in _FORMS if target.get(name)]
    if len(given) > 1:
        raise BadInput(f"Only one of Input, InputPath, or InputTransformer must be provided for target {target['Id']}.")
    try:
        if target.get("Input"):
            _decoded(target["Input"])
        if target.get("InputPath"):
            parse_path(target["InputPath"])
        if target.get("InputTransformer"):
            _check_template(target["InputTransformer"])
    except BadInput as error:
        raise BadInput(f"Invalid {given[0]} for target {target['Id']} : {error}.") from error


def _check_template(transformer: Mapping[str, Any]) -> None:
    paths = transformer.get("InputPathsMap") or {}
    for name, path in paths.items():
        if name.lower().startswith("aws"):
            raise BadInput(f"the variable {name:.100} has a reserved name: they may not begin with aws")
        parse_path(path)
    template = transformer["InputTemplate"]
    for name in _VARIABLE.findall(template):
        if name not in paths and name not in _OWN:
            raise BadInput(f"its template has the variable <{name:.100}>, which InputPathsMap doesn't have")
    if not _is_json(_fill(template, lambda _: Missing)):
        raise BadInput("its template is neither JSON nor lines that are each a JSON string, with <variables> filled in")


def _is_json(text: str) -> bool:
    try:
        _decoded(text)
    except BadInput:
        try:
            return all(isinstance(_decoded(line), str) for line in text.splitlines() if line.strip())
        except BadInput:
            return False
    return True


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise BadInput("it is not valid JSON: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BadInput(f"it is not valid JSON: {error}") from error


def input_of(target: Mapping[str, Any], event: Mapping[str, Any], *, rule_arn: str, ingested_at: str) -> str:
    """Return the text that a target is given for an event: JSON, or lines that are each a JSON string.

    `ingested_at`: ISO 8601. An InputPath that leads nowhere gives null.
    """
    if target.get("Input"):
        return str(target["Input"])
    if target.get("InputPath"):
        found = follow(target["InputPath"], event)
        return _json(None if found is Missing else found)
    transformer = target.get("InputTransformer")
    if not transformer:
        return _json(event)
    paths = transformer.get("InputPathsMap") or {}

    def value(name: str) -> Any:
        if name in paths:
            return follow(paths[name], event)
        return _own(name, event, rule_arn, ingested_at)

    return _fill(transformer["InputTemplate"], value)


def _own(name: str, event: Mapping[str, Any], rule_arn: str, ingested_at: str) -> Any:
    if name == "aws.events.rule-arn":
        return rule_arn
    if name == "aws.events.rule-name":
        return rule_arn.rpartition("/")[2]
    if name == "aws.events.event.ingestion-time":
        return ingested_at
    if name == "aws.events.event":
        return {member: value for member, value in event.items() if member != "detail"}
    return event


def _fill(template: str, value: Callable[[str], Any]) -> str:
    """Put values in place of a template's variables, told by whether they are inside a JSON string."""
    out: list[str] = []
    quoted = False
    place = 0
    for variable in _VARIABLE.finditer(template):
        before = template[place : variable.start()]
        out.append(before)
        quoted = _quoted_after(before, quoted=quoted)
        found = value(variable[1])
        if quoted:
            out.append(_inside_quotes(found))
        else:
            out.append(_json(None if found is Missing else found))
        place = variable.end()
    out.append(template[place:])
    return "".join(out)


def _quoted_after(text: str, *, quoted: bool) -> bool:
    """Tell whether a JSON string is open behind `text`, if one was (or wasn't) before it."""
    escaped = False
    for letter in text:
        if escaped:
            escaped = False
        elif letter == "\\" and quoted:
            escaped = True
        elif letter == '"':
            quoted = not quoted
    return quoted


def _inside_quotes(value: Any) -> str:
    if value is Missing:
        return ""
    return _json(value if isinstance(value, str) else _json(value))[1:-1]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
