"""Checking a request against the AWS model, in AWS's words.

Wrong JSON types are a SerializationException. A missing member or a value outside its enum, pattern, length or range is
the service's validation error, all of them in one message, as AWS's own framework words it:

    1 validation error detected: Value 'x' at 'launchType' failed to satisfy constraint: Member must satisfy enum
    value set: [EC2, FARGATE]

Members that the model doesn't know, and members that are null, are dropped, as AWS does.
"""

import base64
import binascii
import math
from datetime import UTC, datetime
from typing import Any, Final

from controlplane.api.errors import ApiError
from controlplane.api.model import Shape

__all__ = ["check"]

Document = dict[str, Any]

#: Bits of the integers on the wire.
_INTEGERS: Final = {"integer": 32, "long": 64}

#: Seconds of the years 1 and 9999: what a calendar can hold.
_EARLIEST: Final = -62135596800
_LATEST: Final = 253402300799

#: Problems named in one answer; the rest are counted.
_MOST_PROBLEMS: Final = 10
#: A bad value is quoted up to this length.
_QUOTE_LENGTH: Final = 200

_NAMES: Final = {
    "structure": "a Structure",
    "list": "a List",
    "map": "a Map",
    "string": "a String",
    "integer": "an Integer",
    "long": "a Long",
    "double": "a Double",
    "float": "a Float",
    "boolean": "a Boolean",
    "timestamp": "a Timestamp",
    "blob": "a Blob",
}


def check(shape: Shape | None, value: object, *, validation_error: str) -> Document:
    """Return the request with only what its shape knows, timestamps as epoch seconds.

    Raises ApiError: SerializationException or `validation_error`.
    """
    if shape is None:
        return {}
    checker = _Checker()
    cleaned = checker.walk(shape, value, "")
    if checker.problems:
        raise ApiError(_sentence(checker.problems), code=validation_error)
    document: Document = cleaned
    return document


def _sentence(problems: list[str]) -> str:
    count = len(problems)
    noun = "error" if count == 1 else "errors"
    told = "; ".join(problems[:_MOST_PROBLEMS])
    rest = f"; and {count - _MOST_PROBLEMS} more" if count > _MOST_PROBLEMS else ""
    return f"{count} validation {noun} detected: {told}{rest}"


class _Checker:
    """Walks one request; collects what is wrong with its values, raises at once for what is wrong with its types."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def walk(self, shape: Shape, value: Any, path: str) -> Any:
        kind = shape.type
        if kind == "string":
            if not isinstance(value, str):
                raise _wrong_type(shape, value, path)
            if shape.enum or shape.pattern or shape.minimum is not None or shape.maximum is not None:
                self._check_string(shape, value, path)
            return value
        if kind == "structure":
            return self._structure(shape, value, path)
        if kind == "list":
            return self._list(shape, value, path)
        if kind == "map":
            return self._map(shape, value, path)
        if kind == "boolean":
            if not isinstance(value, bool):
                raise _wrong_type(shape, value, path)
            return value
        if kind in _INTEGERS:
            return self._integer(shape, value, path)
        return self._other(shape, value, path)

    def _structure(self, shape: Shape, value: Any, path: str) -> Any:
        if shape.document:
            return value
        if not isinstance(value, dict):
            raise _wrong_type(shape, value, path)
        cleaned: Document = {}
        prefix = f"{path}." if path else ""
        for name, item in value.items():
            member = shape.members.get(name)
            if member is not None and item is not None:
                cleaned[name] = self.walk(member, item, prefix + name)
        for name in shape.required:
            if name not in cleaned:
                self._null(prefix + name)
        if shape.union and len(cleaned) != 1:
            self._fail("...", path, f"Exactly one of [{', '.join(shape.members)}] must be set")
        return cleaned

    def _list(self, shape: Shape, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong_type(shape, value, path)
        self._check_size(shape, len(value), f"{len(value)} elements", path)
        assert shape.element is not None
        cleaned = []
        for number, item in enumerate(value, 1):
            item_path = f"{path}.{number}.member"
            if item is None:
                self._null(item_path)
            else:
                cleaned.append(self.walk(shape.element, item, item_path))
        return cleaned

    def _map(self, shape: Shape, value: Any, path: str) -> Document:
        if not isinstance(value, dict):
            raise _wrong_type(shape, value, path)
        self._check_size(shape, len(value), f"{len(value)} entries", path)
        assert shape.key is not None
        assert shape.element is not None
        cleaned: Document = {}
        for key, item in value.items():
            self.walk(shape.key, key, f"{path}.{key}.key")
            if item is None:
                self._null(f"{path}.{key}.value")
            else:
                cleaned[key] = self.walk(shape.element, item, f"{path}.{key}.value")
        return cleaned

    def _integer(self, shape: Shape, value: Any, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(shape, value, path)
        bits = _INTEGERS[shape.type]
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise _serialization(f"{value!s:.40} at '{path}' is out of range of {_NAMES[shape.type]} ({bits} bits)")
        self._check_range(shape, value, path)
        return value

    def _other(self, shape: Shape, value: Any, path: str) -> Any:
        if shape.type == "timestamp":
            return _timestamp(shape, value, path)
        if shape.type == "blob":
            return _blob(shape, value, path)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise _wrong_type(shape, value, path)
        self._check_range(shape, value, path)
        return value

    # ------------------------------------------------------------ constraints

    def _check_string(self, shape: Shape, value: str, path: str) -> None:
        if shape.enum and value not in shape.enum:
            self._fail(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
            return
        self._check_size(shape, len(value), value, path)
        if shape.pattern and not shape.pattern.fullmatch(value):
            self._fail(value, path, f"Member must satisfy regular expression pattern: {shape.pattern_text}")

    def _check_size(self, shape: Shape, size: int, shown: str, path: str) -> None:
        if shape.minimum is not None and size < shape.minimum:
            self._fail(shown, path, f"Member must have length greater than or equal to {shape.minimum:g}")
        if shape.maximum is not None and size > shape.maximum:
            self._fail(shown, path, f"Member must have length less than or equal to {shape.maximum:g}")

    def _check_range(self, shape: Shape, value: float, path: str) -> None:
        if shape.minimum is not None and value < shape.minimum:
            self._fail(str(value), path, f"Member must have value greater than or equal to {shape.minimum:.0f}")
        if shape.maximum is not None and value > shape.maximum:
            self._fail(str(value), path, f"Member must have value less than or equal to {shape.maximum:.0f}")

    def _fail(self, shown: str, path: str, constraint: str) -> None:
        quoted = shown if len(shown) <= _QUOTE_LENGTH else shown[:_QUOTE_LENGTH] + "..."
        self.problems.append(f"Value '{quoted}' at '{path}' failed to satisfy constraint: {constraint}")

    def _null(self, path: str) -> None:
        self.problems.append(f"Value null at '{path}' failed to satisfy constraint: Member must not be null")


def _timestamp(shape: Shape, value: Any, path: str) -> float:
    """Take epoch seconds or ISO 8601."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise _wrong_type(shape, value, path) from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not _EARLIEST <= value <= _LATEST:
        raise _wrong_type(shape, value, path)
    return float(value)


def _blob(shape: Shape, value: Any, path: str) -> bytes:
    if not isinstance(value, str):
        raise _wrong_type(shape, value, path)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong_type(shape, value, path) from error


def _wrong_type(shape: Shape, value: object, path: str) -> ApiError:
    at = f" at '{path}'" if path else ""
    return _serialization(f"{_json_kind(value)}{at} can not be converted to {_NAMES[shape.type]}")


def _json_kind(value: object) -> str:
    """Name a JSON value's type as AWS's framework does."""
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    if isinstance(value, int | float):
        return "NUMBER_VALUE"
    if isinstance(value, list):
        return "ARRAY_VALUE"
    return "NULL_VALUE" if value is None else "OBJECT_VALUE"


def _serialization(message: str) -> ApiError:
    return ApiError(message, code="SerializationException")
