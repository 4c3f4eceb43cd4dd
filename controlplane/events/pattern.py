"""EventBridge's event patterns, compiled once and then matched against any number of events. Pure.

A pattern has the structure of the events it matches: objects name fields, lists hold what a field's value may be. All
fields must match, of a list any member. Operators and their rules are those of "Comparison operators for use in event
patterns" in EventBridge's guide. What that leaves open:
 - numbers are equal if their values are: 300 matches 300.0;
 - an event's list matches if any of its values does, also `anything-but`; the fields that a pattern names inside a
   list of objects must be in one and the same object;
 - only leaves exist: a field whose value is an object, or an empty list, counts as absent.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

import msgspec

from homeport.errors import HomeportError

__all__ = ["MAX_DEPTH", "MAX_PATTERN", "InvalidPattern", "Pattern", "compile_pattern"]

#: Characters of a pattern: AWS's highest quota.
MAX_PATTERN: Final = 4096
#: Levels of objects in a pattern; events have about five.
MAX_DEPTH: Final = 50
#: AWS's bounds of numbers in `numeric`.
_LARGEST: Final = 5_000_000_000
#: Alternatives that `$or`s may amount to, multiplied: AWS's own limit.
_MAX_ALTERNATIVES: Final = 1000

_OR: Final = "$or"

#: Whether one value of an event, no list or object, is as wanted.
Test = Callable[[Any], bool]


class InvalidPattern(HomeportError):
    """An event pattern that can't be used; the text says why and where."""


class Pattern:
    """A compiled pattern. Obtained from `compile_pattern`."""

    def __init__(self, root: "_Fields") -> None:
        self._root = root

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Tell whether an event, as decoded JSON, matches. Never raises."""
        return self._root.match(event)


@lru_cache(maxsize=1024)
def compile_pattern(text: str) -> Pattern:
    """Compile a pattern, given as JSON. Raises InvalidPattern."""
    if len(text) > MAX_PATTERN:
        raise InvalidPattern(f"it has {len(text)} characters, more than {MAX_PATTERN}")
    try:
        document = msgspec.json.decode(text)
    except RecursionError as error:
        raise InvalidPattern("it is not valid JSON: it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidPattern(f"it is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidPattern("it must be a JSON object")
    fields = _fields(document, "", 1)
    if fields.alternatives > _MAX_ALTERNATIVES:
        raise InvalidPattern(f"its {_OR}s amount to {fields.alternatives} combinations, more than {_MAX_ALTERNATIVES}")
    return Pattern(fields)


# ---------------------------------------------------------------- matching


class _Leaf:
    """What a field's value may be."""

    alternatives = 1

    def __init__(self, tests: tuple[Test, ...], *, absent: bool) -> None:
        self._tests = tests
        #: It matches a field that isn't there, too.
        self._absent = absent

    def match(self, value: Any) -> bool:
        absent = True
        for leaf in _leaves(value):
            absent = False
            for test in self._tests:
                if test(leaf):
                    return True
        return absent and self._absent


class _Fields:
    """Fields that must all match, and lists of alternatives of which one each must."""

    def __init__(self, fields: "dict[str, _Leaf | _Fields]", ors: "list[list[_Fields]]") -> None:
        self._fields = tuple(fields.items())
        self._ors = ors
        self.alternatives = 1
        for node in fields.values():
            self.alternatives *= node.alternatives
        for group in ors:
            self.alternatives *= sum(each.alternatives for each in group)

    def match(self, value: Any) -> bool:
        if isinstance(value, Mapping):
            return self._match_object(value)
        objects = [each for each in _parts(value) if isinstance(each, Mapping)]
        return any(map(self._match_object, objects)) if objects else self._match_object({})

    def _match_object(self, value: Mapping[str, Any]) -> bool:
        for name, node in self._fields:
            if not node.match(value.get(name, ())):
                return False
        return all(any(each.match(value) for each in group) for group in self._ors)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | Mapping):
        yield from (part for part in _parts(value) if not isinstance(part, Mapping))
    else:
        yield value


def _parts(value: Any) -> Iterator[Any]:
    """Yield what is in a list and the lists in it; without recursion, since events may be nested by malice."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, list | tuple):
            stack.extend(part)
        else:
            yield part


# ---------------------------------------------------------------- compiling


def _fields(document: dict[str, Any], path: str, depth: int) -> _Fields:
    if not document:
        raise InvalidPattern(f"an empty object is not allowed{_at(path)}")
    if depth > MAX_DEPTH:
        raise InvalidPattern(f"it has more than {MAX_DEPTH} levels")
    fields: dict[str, _Leaf | _Fields] = {}
    ors: list[list[_Fields]] = []
    for name, value in document.items():
        below = f"{path}.{name}" if path else name
        if name == _OR and _is_or(value):
            ors.append([_fields(each, f"{below}[{number}]", depth + 1) for number, each in enumerate(value)])
        elif isinstance(value, dict):
            fields[name] = _fields(value, below, depth + 1)
        elif isinstance(value, list):
            fields[name] = _leaf(value, below)
        else:
            raise InvalidPattern(f'"{name:.100}" must be an object or an array{_at(path)}')
    return _Fields(fields, ors)


def _is_or(value: Any) -> bool:
    """Tell whether `$or` is the operator; else it is the name of a field."""
    if not isinstance(value, list) or len(value) < 2:
        return False
    return all(isinstance(each, dict) and each and not _OPERATORS.keys() & each.keys() for each in value)


def _leaf(values: list[Any], path: str) -> _Leaf:
    if not values:
        raise InvalidPattern(f"an empty array is not allowed{_at(path)}")
    tests: list[Test] = []
    absent = False
    for value in values:
        if isinstance(value, list):
            raise InvalidPattern(f"a match value must be a string, number, true, false, null or an object{_at(path)}")
        if not isinstance(value, dict):
            tests.append(_equal(value))
            continue
        if len(value) != 1:
            raise InvalidPattern(f"only one key is allowed in a match expression, not {len(value)}{_at(path)}")
        ((operator, operand),) = value.items()
        if operator == "exists" and operand is False:
            absent = True
            continue
        make = _OPERATORS.get(operator)
        if make is None:
            known = ", ".join(sorted(_OPERATORS))
            raise InvalidPattern(f"unrecognized match type {operator:.100}{_at(path)}; there are {known}")
        tests.append(make(operand, path))
    return _Leaf(tuple(tests), absent=absent)


def _at(path: str) -> str:
    return f" at '{path:.200}'" if path else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(wanted: Any) -> Test:
    if isinstance(wanted, bool) or wanted is None:
        return lambda value: value is wanted
    if isinstance(wanted, str):
        return lambda value: isinstance(value, str) and value == wanted
    return lambda value: _is_number(value) and bool(value == wanted)


def _text(operand: Any, operator: str, path: str) -> str:
    if not isinstance(operand, str):
        raise InvalidPattern(f"{operator} match pattern must be a string{_at(path)}")
    return operand


def _folded(operand: Any, operator: str, path: str) -> tuple[str, bool]:
    """Return the text of a prefix or suffix, and whether its case is to be ignored."""
    if isinstance(operand, dict) and list(operand) == ["equals-ignore-case"]:
        return _text(operand["equals-ignore-case"], f"{operator} with equals-ignore-case", path).lower(), True
    return _text(operand, operator, path), False


def _prefix(operand: Any, path: str) -> Test:
    wanted, folded = _folded(operand, "prefix", path)
    return lambda value: isinstance(value, str) and (value.lower() if folded else value).startswith(wanted)


def _suffix(operand: Any, path: str) -> Test:
    wanted, folded = _folded(operand, "suffix", path)
    return lambda value: isinstance(value, str) and (value.lower() if folded else value).endswith(wanted)


def _ignore_case(operand: Any, path: str) -> Test:
    wanted = _text(operand, "equals-ignore-case", path).lower()
    return lambda value: isinstance(value, str) and value.lower() == wanted


def _wildcard(operand: Any, path: str) -> Test:
    first, *others = _pieces(_text(operand, "wildcard", path), path)
    if not others:
        return lambda value: isinstance(value, str) and value == first
    *middle, last = others

    def test(value: Any) -> bool:
        if not isinstance(value, str) or not value.startswith(first) or not value.endswith(last):
            return False
        place, end = len(first), len(value) - len(last)
        # The earliest place of each piece leaves the most room for the next ones.
        for piece in middle:
            found = value.find(piece, place, max(end, 0))
            if found < 0:
                return False
            place = found + len(piece)
        return place <= end

    return test


def _pieces(text: str, path: str) -> list[str]:
    r"""Split at each `*`. `\*` is an asterisk and `\\` a backslash."""
    pieces = [""]
    letters = iter(text)
    previous = ""
    for letter in letters:
        if letter == "*":
            if previous == "*":
                raise InvalidPattern(f"consecutive wildcard characters are not allowed{_at(path)}")
            pieces.append("")
        elif letter == "\\":
            escaped = next(letters, "")
            if escaped not in ("*", "\\"):
                raise InvalidPattern(f"a backslash in wildcard must be followed by * or another backslash{_at(path)}")
            pieces[-1] += escaped
        else:
            pieces[-1] += letter
        previous = letter
    return pieces


def _anything_but(operand: Any, path: str) -> Test:
    excluded: list[Test]
    if isinstance(operand, dict):
        excluded = _excluded_operator(operand, path)
    else:
        values = operand if isinstance(operand, list) else [operand]
        if not values:
            raise InvalidPattern(f"an empty array is not allowed in anything-but{_at(path)}")
        if not (all(isinstance(each, str) for each in values) or all(map(_is_number, values))):
            raise InvalidPattern(f"anything-but takes strings or numbers, all of one kind{_at(path)}")
        excluded = [_equal(value) for value in values]
    return lambda value: not any(test(value) for test in excluded)


def _excluded_operator(operand: dict[str, Any], path: str) -> list[Test]:
    inside = {name: _OPERATORS[name] for name in ("prefix", "suffix", "equals-ignore-case", "wildcard")}
    if len(operand) != 1 or not inside.keys() & operand.keys():
        raise InvalidPattern(f"an object in anything-but has one of {', '.join(inside)}{_at(path)}")
    ((operator, given),) = operand.items()
    values = given if isinstance(given, list) else [given]
    if not values:
        raise InvalidPattern(f"an empty array is not allowed in anything-but {operator}{_at(path)}")
    return [inside[operator](_text(value, f"anything-but {operator}", path), path) for value in values]


_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}


def _numeric(operand: Any, path: str) -> Test:
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        raise InvalidPattern(f'numeric takes an array like [">", 0] or [">", 0, "<=", 5]{_at(path)}')
    operators, bounds = operand[::2], operand[1::2]
    for operator in operators:
        if not isinstance(operator, str) or operator not in _COMPARISONS:
            raise InvalidPattern(f"unrecognized numeric range operator {operator!r:.100}{_at(path)}")
    for bound in bounds:
        if not _is_number(bound) or abs(bound) > _LARGEST:
            raise InvalidPattern(f"a value of numeric must be a number within -5e9 and 5e9{_at(path)}")
    if len(operators) == 2:
        if operators[0][0] != ">" or operators[1][0] != "<":
            raise InvalidPattern(f"a numeric range has > or >= first, then < or <={_at(path)}")
        if bounds[0] >= bounds[1]:
            raise InvalidPattern(f"the bottom of a numeric range must be less than its top{_at(path)}")
    checks = [(_COMPARISONS[operator], bound) for operator, bound in zip(operators, bounds, strict=True)]
    return lambda value: _is_number(value) and all(compare(value, bound) for compare, bound in checks)


def _cidr(operand: Any, path: str) -> Test:
    text = _text(operand, "cidr", path)
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        reason = f"malformed CIDR {text:.100}: it must be an address, a slash and a length{_at(path)}"
        raise InvalidPattern(reason) from error
    if "/" not in text:
        raise InvalidPattern(f"malformed CIDR {text:.100}: one slash is required{_at(path)}")

    def test(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return ip_address(value) in network
        except ValueError:
            return False

    return test


def _exists(operand: Any, path: str) -> Test:
    if operand is not True:
        raise InvalidPattern(f"exists match pattern must be true or false{_at(path)}")
    return lambda _: True


_OPERATORS: Final[Mapping[str, Callable[[Any, str], Test]]] = {
    "anything-but": _anything_but,
    "cidr": _cidr,
    "equals-ignore-case": _ignore_case,
    "exists": _exists,
    "numeric": _numeric,
    "prefix": _prefix,
    "suffix": _suffix,
    "wildcard": _wildcard,
}
