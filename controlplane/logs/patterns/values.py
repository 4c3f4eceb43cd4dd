"""Conditions on one value: `= 4*`, `!= "x"`, `> 1e3`, `= %regex%`."""

import operator
import re
from collections.abc import Callable
from typing import Any, Final

from lark import Token

from controlplane.logs.patterns.errors import PatternError
from controlplane.logs.patterns.regexes import MAX_REGEXES, regex_search

__all__ = ["Condition", "Value", "check_regexes", "condition", "position_of", "unquote"]

#: What a condition is asked about; never a bool.
Value = str | int | float
Condition = Callable[[Value], bool]

_ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
#: Bounded, because Python refuses to read longer ones.
_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,9})?", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?\d+", re.ASCII)


def condition(symbol: Token, operand: Token) -> Condition:
    """Compile an operator and what stands right of it: a STRING, a REGEX or a BARE word. Raises PatternError."""
    if symbol in _ORDERINGS:
        return _ordering(symbol, operand)
    positive = _equal(operand)
    return positive if symbol == "=" else lambda value: not positive(value)


def unquote(token: str) -> str:
    r"""Return what stands between a token's quotes, with \" and \\ as they are meant."""
    return re.sub(r'\\(["\\])', r"\1", token[1:-1])


def position_of(token: Token) -> int:
    """Return where a token begins, from 1."""
    return (token.start_pos or 0) + 1


def check_regexes(tokens: list[Token]) -> None:
    """Raise PatternError if a pattern has more regular expressions than it may."""
    found = [token for token in tokens if token.type == "REGEX"]
    if len(found) > MAX_REGEXES:
        raise PatternError(
            f"a pattern can have {MAX_REGEXES} regular expressions; there is one more at position "
            f"{position_of(found[MAX_REGEXES])}"
        )


def _ordering(symbol: Token, operand: Token) -> Condition:
    limit = _number(operand) if operand.type == "BARE" else None
    if limit is None:
        raise PatternError(f"{symbol} at position {position_of(symbol)} needs a number right of it, not {operand}")
    compare = _ORDERINGS[symbol]

    def test(value: Value) -> bool:
        number = _number(value) if isinstance(value, str) else value
        return number is not None and compare(number, limit)

    return test


def _equal(operand: Token) -> Condition:
    if operand.type == "REGEX":
        found = regex_search(operand[1:-1], position_of(operand))
        return lambda value: found(_text(value))
    if operand.type == "STRING":
        like = _like(unquote(operand))
        return lambda value: like(_text(value))
    like, wanted = _like(operand), _number(operand)
    if wanted is None:
        return lambda value: like(_text(value))

    def same_number(value: Value) -> bool:
        number = _number(value) if isinstance(value, str) else value
        return number == wanted if number is not None else like(_text(value))

    return same_number


def _text(value: Value) -> str:
    return value if isinstance(value, str) else str(value)


def _number(text: str) -> int | float | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def _like(pattern: str) -> Callable[[str], bool]:
    """Compile a text in which * stands for anything."""
    first, *middle, last = pattern.split("*") if "*" in pattern else (pattern, pattern)
    if "*" not in pattern:
        return lambda text: text == pattern
    if not any(middle):
        least = len(first) + len(last)
        return lambda text: len(text) >= least and text.startswith(first) and text.endswith(last)
    return lambda text: _in_order(text, first, middle, last)


def _in_order(text: str, first: str, middle: list[str], last: str) -> bool:
    """Tell whether the parts follow one another. The first place that fits is always as good as a later one."""
    if not text.startswith(first):
        return False
    at = len(first)
    for part in middle:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return len(text) - at >= len(last) and text.endswith(last)
