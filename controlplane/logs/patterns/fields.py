"""Space-delimited patterns: `[ip, user, ..., status=4*, size > 1000 || size = 0]`.

A field is what stands between blanks, "quotation marks" or [brackets]. Without an ellipsis the last field of a pattern
takes the rest of the message, however many fields that is: `[level=ERROR, rest]`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final

from lark import Lark, Token, Transformer, Tree, v_args
from lark.exceptions import UnexpectedInput, VisitError

from controlplane.grammars import explain
from controlplane.logs.patterns.errors import PatternError
from controlplane.logs.patterns.values import check_regexes, condition, position_of

__all__ = ["FieldsPattern", "parse_fields"]

Test = Callable[[str], bool]

_EXPECTED: Final = {
    "NAME": "a field's name",
    "ELLIPSIS": "...",
    "OPERATOR": "an operator (=, !=, >, >=, <, <=)",
    "BARE": "a value",
    "COMMA": "','",
    "RSQB": "']'",
    "RPAR": "')'",
}
#: Every alternative stops at the next bracket, quotation mark or blank, so that no message takes more than linear time.
_FIELD: Final = re.compile(r'"([^"]*)"(?!\S)|\[([^\[\]]*)\](?!\S)|(\S+)')


@dataclass(frozen=True, slots=True)
class _Entry:
    """One field of a pattern. `name` "": it has none."""

    name: str = ""
    test: Test | None = None


@dataclass(frozen=True, slots=True)
class FieldsPattern:
    """A parsed pattern. `tail` None: there is no ellipsis."""

    head: tuple[_Entry, ...]
    tail: tuple[_Entry, ...] | None

    def matches(self, message: str) -> bool:
        """Tell whether the message has these fields, and they are as wanted."""
        return self._values(message) is not None

    def extract(self, message: str) -> dict[str, str]:
        """Return the fields of a message that matches: `$name`, or `$3` for the third one if it has no name."""
        values = self._values(message) or []
        names = [entry.name for entry in self.head]
        if self.tail is not None:
            names += [""] * (len(values) - len(self.head) - len(self.tail)) + [entry.name for entry in self.tail]
        names += [""] * (len(values) - len(names))
        return {f"${name or number}": value for number, (name, value) in enumerate(zip(names, values, strict=True), 1)}

    def _values(self, message: str) -> Sequence[str] | None:
        if not self.head and self.tail is None:
            return [_value(match) for match in _FIELD.finditer(message)]
        values = self._split(message)
        if values is None:
            return None
        tail = self.tail or ()
        behind = values[len(values) - len(tail) :]
        for entries, found in ((self.head, values), (tail, behind)):
            if any(entry.test and not entry.test(value) for entry, value in zip(entries, found, strict=False)):
                return None
        return values

    def _split(self, message: str) -> list[str] | None:
        wanted = len(self.head) + len(self.tail or ())
        if self.tail is not None:
            values = [_value(match) for match in _FIELD.finditer(message)]
            return values if len(values) >= wanted else None
        found = list(islice(_FIELD.finditer(message), wanted + 1))
        if len(found) < wanted:
            return None
        values = [_value(match) for match in found[:wanted]]
        if len(found) > wanted:
            values[-1] = message[found[wanted - 1].start() :].rstrip()
        return values


def parse_fields(text: str) -> FieldsPattern:
    """Compile a space-delimited pattern. Raises PatternError."""
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as err:
        raise PatternError(explain(err, text, _EXPECTED)) from None
    check_regexes(list(tree.scan_values(lambda value: isinstance(value, Token))))
    parts = [_part(child) for child in tree.children]
    if parts == [_Entry()]:
        return FieldsPattern((), None)
    ellipses = [number for number, part in enumerate(parts) if part is None]
    if len(ellipses) > 1:
        raise PatternError("a pattern can have one ellipsis (...), but has " + str(len(ellipses)))
    entries = [part or _Entry() for part in parts]
    if not ellipses:
        return FieldsPattern(tuple(entries), None)
    return FieldsPattern(tuple(entries[: ellipses[0]]), tuple(entries[ellipses[0] + 1 :]))


@cache
def _grammar() -> Lark:
    return Lark.open("fields.lark", rel_to=__file__, parser="lalr", maybe_placeholders=True)


def _part(child: Tree[Token] | Token | None) -> _Entry | None:
    """Return a field of the pattern; None for an ellipsis."""
    if child is None:
        return _Entry()
    if isinstance(child, Token):
        return None
    names = [t for t in child.scan_values(lambda value: isinstance(value, Token)) if t.type == "NAME"]
    for name in names:
        if name.lower() != names[0].lower():
            raise PatternError(
                f"the conditions of a field must name that field: {name} at position {position_of(name)} "
                f"is not {names[0]}"
            )
    if child.data == "named":
        return _Entry(str(names[0]))
    try:
        return _Entry(str(names[0]), _Compiler().transform(child))
    except VisitError as err:
        if isinstance(err.orig_exc, PatternError):
            raise err.orig_exc from None
        raise


@v_args(inline=True)
class _Compiler(Transformer[Token, Test]):
    """Turns the conditions of a field into closures over its value."""

    def disjunction(self, *tests: Test) -> Test:
        return lambda value: any(test(value) for test in tests)

    def conjunction(self, *tests: Test) -> Test:
        return lambda value: all(test(value) for test in tests)

    def comparison(self, _name: Token, symbol: Token, operand: Token) -> Test:
        return condition(symbol, operand)


def _value(match: re.Match[str]) -> str:
    return match[match.lastindex or 0]
