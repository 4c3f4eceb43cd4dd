"""From an expression's tree to a function of a row. Pure.

A Scope says what names mean at a place in the pipeline: fields that commands have made hide those of the event, and
behind `stats` there is nothing but its columns.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

from controlplane import regexes
from controlplane.logs.insights.functions import FUNCTIONS, arithmetic
from controlplane.logs.insights.parser import spaceless
from controlplane.logs.insights.rows import Row, find
from controlplane.logs.insights.syntax import (
    Among,
    Arithmetic,
    Boolean,
    Call,
    Compare,
    Expression,
    Field,
    Like,
    Literal,
    MalformedQuery,
    Not,
    Pattern,
    Period,
    Span,
)
from controlplane.logs.insights.values import Instant, compare, same, shown, truth

__all__ = ["MAX_DEPTH", "SYSTEM_FIELDS", "Evaluate", "Scope", "compile_expression", "compile_regex"]

Evaluate = Callable[[Row], Any]

#: How deep an expression may be nested.
MAX_DEPTH: Final = 100

#: The fields that every event has. `@log` is the account's id and the group's name, as the group of a Row is given.
SYSTEM_FIELDS: Final[dict[str, Evaluate]] = {
    "@timestamp": lambda row: None if row.event is None else Instant(row.event.at),
    "@ingestionTime": lambda row: None if row.event is None else Instant(row.event.ingested_at),
    "@message": lambda row: None if row.event is None else row.event.text,
    "@logStream": lambda row: row.stream,
    "@log": lambda row: row.group,
    "@ptr": Row.pointer,
}

_ORDERINGS: Final[dict[str, Callable[[int, int], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Scope:
    """What names mean. `now`: epoch seconds, when the query was started."""

    def __init__(self, *, now: float) -> None:
        self.now = now
        #: What commands have made.
        self.made: set[str] = set()
        #: Whether rows are events still.
        self.events = True

    def after_stats(self, columns: list[str]) -> None:
        """Go behind a `stats`."""
        self.events = False
        self.made = set(columns)

    def column(self, text: str) -> str | None:
        """Return the name of the column that was made by an expression written like this."""
        return next((name for name in self.made if spaceless(name) == text), None)


def compile_expression(
    expression: Expression, scope: Scope, *, aggregate: Callable[[Call], Evaluate | None] | None = None, depth: int = 0
) -> Evaluate:
    """Return the function that computes an expression of a row.

    `aggregate` says how a call of one of the functions of `stats` is computed, if one may stand here. Raises
    MalformedQuery.
    """
    if depth > MAX_DEPTH:
        raise MalformedQuery(f"the expression is nested more than {MAX_DEPTH} deep", *_place(expression))

    def inner(each: Expression) -> Evaluate:
        return compile_expression(each, scope, aggregate=aggregate, depth=depth + 1)

    match expression:
        case Literal(value=Period()):
            message = "a period can be given to bin, datefloor and dateceil, and nowhere else"
            raise MalformedQuery(message, *_place(expression))
        case Literal(value=value):
            return lambda _: value
        case Field():
            return _field(expression, scope)
        case Call():
            found = aggregate(expression) if aggregate is not None else None
            return found or _call(expression, scope, inner)
        case Arithmetic(operator=sign, left=left, right=right):
            a, b = inner(left), inner(right)
            return lambda row: arithmetic(sign, a(row), b(row))
        case Compare(operator=sign, left=left, right=right):
            return _comparison(sign, inner(left), inner(right))
        case Among(subject=subject, values=values, negated=negated):
            return _among(inner(subject), [inner(value) for value in values], negated)
        case Like(subject=subject, pattern=pattern, negated=negated):
            return _like(inner(subject), pattern, negated)
        case Not(operand=operand):
            negative = inner(operand)
            return lambda row: not truth(negative(row))
        case Boolean(operator=word, operands=operands):
            return _boolean(word, [inner(each) for each in operands])


def compile_regex(pattern: Pattern) -> Any:
    """Compile a regular expression (RE2's). Raises MalformedQuery."""
    try:
        return regexes.compile_regex(pattern.text)
    except regexes.BadRegex as error:
        raise MalformedQuery(
            f"the regular expression can't be used: {error} (RE2's syntax: no look-around, no back-references)",
            *_place_of(pattern.span),
        ) from None


def _field(field: Field, scope: Scope) -> Evaluate:
    name = field.name
    if name in scope.made:
        return lambda row: row.values.get(name)
    # A part of a structure that was made, e.g. of jsonParse(...) as a: a.b
    for length in range(len(field.path) - 1, 0, -1):
        base, path = ".".join(field.path[:length]), field.path[length:]
        if base in scope.made:
            return lambda row: find(row.values.get(base), path)
    if not scope.events:
        raise MalformedQuery(f"Unknown symbols found in or after stats: {name}", *_place(field))
    if name in SYSTEM_FIELDS:
        return SYSTEM_FIELDS[name]
    path = field.path
    if len(path) == 1:
        return lambda row: document.get(name) if (document := row.document()) is not None else None
    return lambda row: find(row.document(), path)


def _call(call: Call, scope: Scope, inner: Callable[[Expression], Evaluate]) -> Evaluate:
    column = scope.column(call.text)
    if column is not None:
        return lambda row: row.values.get(column)
    if call.name == "now" and not call.arguments:
        seconds = int(scope.now)
        return lambda _: seconds
    name, arguments = call.name, call.arguments
    if name == "bin":
        name = "datefloor"
        arguments = (Field(call.span, "@timestamp", ("@timestamp",)), *arguments)
    function = FUNCTIONS.get(name)
    if function is None or call.star:
        raise MalformedQuery(f"there is no function {call.text} here", *_place(call))
    if len(arguments) < function.least or (function.most is not None and len(arguments) > function.most):
        raise MalformedQuery(f"{call.name} takes another number of arguments: {call.text}", *_place(call))
    if name in ("datefloor", "dateceil"):
        return _rounding(call, function.call, inner(arguments[0]), arguments[1])
    compiled = [inner(argument) for argument in arguments]
    run = function.call
    if len(compiled) == 1:
        only = compiled[0]
        return lambda row: run(only(row))
    return lambda row: run(*[each(row) for each in compiled])


def _rounding(call: Call, run: Callable[[Any, Any], Any], at: Evaluate, argument: Expression) -> Evaluate:
    period = argument.value if isinstance(argument, Literal) else None
    if not isinstance(period, Period):
        raise MalformedQuery(f"{call.name} takes a period such as 5m: {call.text}", *_place(call))
    return lambda row: run(at(row), period)


def _comparison(sign: str, left: Evaluate, right: Evaluate) -> Evaluate:
    if sign == "=":
        return lambda row: same(left(row), right(row))
    if sign == "!=":
        return lambda row: not same(left(row), right(row))
    holds = _ORDERINGS[sign]

    def ordered(row: Row) -> bool:
        order = compare(left(row), right(row))
        return order is not None and holds(order, 0)

    return ordered


def _among(subject: Evaluate, values: list[Evaluate], negated: bool) -> Evaluate:
    def found(row: Row) -> bool:
        value = subject(row)
        return any(same(value, each(row)) for each in values) != negated

    return found


def _like(subject: Evaluate, pattern: Pattern, negated: bool) -> Evaluate:
    text = pattern.text
    if not pattern.regex:

        def contains(row: Row) -> bool:
            value = subject(row)
            return (value is not None and text in shown(value)) != negated

        return contains
    search = compile_regex(pattern).search

    def matches(row: Row) -> bool:
        value = subject(row)
        return (value is not None and search(shown(value)) is not None) != negated

    return matches


def _boolean(word: str, operands: list[Evaluate]) -> Evaluate:
    if word == "and":
        return lambda row: all(truth(each(row)) for each in operands)
    return lambda row: any(truth(each(row)) for each in operands)


def _place(node: Expression) -> tuple[int, int]:
    return _place_of(node.span)


def _place_of(span: Span) -> tuple[int, int]:
    return span.start, span.end
