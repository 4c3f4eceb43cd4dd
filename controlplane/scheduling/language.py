"""ECS's cluster query language: expressions that select container instances (memberOf, ListContainerInstances' filter).

`parse_query` turns an expression into a Query once; asking it about a host is cheap. Patterns match the whole value, as
Java's do in ECS; they are RE2's, which match in linear time, so that no expression in a request can stall the process.
An instance that lacks an attribute satisfies the negative operators (!=, !in, !~, !exists) and no others.
"""

import operator
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, VisitError

from controlplane.grammars import explain
from controlplane.regexes import BadRegex, compile_regex
from controlplane.scheduling.model import Candidate

__all__ = ["MAX_EXPRESSION_LENGTH", "Query", "QueryError", "parse_query"]

#: ECS's limit for a constraint's expression.
MAX_EXPRESSION_LENGTH: Final = 2000

Test = Callable[[Candidate], bool]
#: The values a subject has on a host: none, one, or (task:group) several.
Values = Callable[[Candidate], Collection[str]]

_SYMBOLS: Final = {
    "equals": "==",
    "not_equals": "!=",
    "greater_than": ">",
    "greater_than_equal": ">=",
    "less_than": "<",
    "less_than_equal": "<=",
    "matches": "=~",
    "not_matches": "!~",
    "not_in": "!in",
    "not_exists": "!exists",
}
_ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_EQUALITY: Final = frozenset(("==", "!=", "in", "!in"))
_PATTERN: Final = frozenset(("=~", "!~"))
#: What ECS documents as valid for each subject; attributes and task groups take all.
_VALID: Final[dict[str, frozenset[str]]] = {
    "agentConnected": _EQUALITY | _PATTERN,
    "agentVersion": frozenset(("==", "!=", *_ORDERINGS)),
    "ec2InstanceId": _EQUALITY | _PATTERN,
    "registeredAt": frozenset(("==", "!=", *_ORDERINGS)),
    "runningTasksCount": frozenset(("==", "!=", *_ORDERINGS)),
}


class QueryError(ValueError):
    """An expression can't be used; the text says where (counting characters from 1) and why."""


class Query:
    """A parsed expression."""

    def __init__(self, text: str, test: Test) -> None:
        self.text = text
        self._test = test

    def matches(self, candidate: Candidate) -> bool:
        """Tell whether the host is selected."""
        return self._test(candidate)


@lru_cache(maxsize=1024)
def parse_query(text: str) -> Query:
    """Parse an expression.

    Raises QueryError with the position of what can't be understood.
    """
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise QueryError(f"the expression has {len(text)} characters; {MAX_EXPRESSION_LENGTH} are allowed")
    if not text.strip():
        raise QueryError("the expression is empty")
    try:
        return Query(text, _Compiler().transform(_grammar().parse(text)))
    except RecursionError:
        raise QueryError("the expression is nested too deeply") from None
    except VisitError as err:
        if isinstance(err.orig_exc, QueryError):
            raise err.orig_exc from None
        raise
    except UnexpectedInput as err:
        raise QueryError(explain(err, text, _EXPECTED)) from None


@cache
def _grammar() -> Lark:
    return Lark.open("query.lark", rel_to=__file__, parser="lalr", maybe_placeholders=False)


_EXPECTED: Final = {
    "SUBJECT": "a subject (attribute:NAME, task:group, agentConnected, agentVersion, ec2InstanceId, registeredAt, "
    "runningTasksCount)",
    "OPERATOR": "an operator (==, !=, >, >=, <, <=, =~, !~, in, !in, exists, !exists)",
    "WORD": "a value",
    "LSQB": "a list in brackets",
    "RSQB": "']'",
    "COMMA": "','",
    "RPAR": "')'",
    "_AND": "'and' or 'or'",
}


@v_args(inline=True)
class _Compiler(Transformer[Token, Test]):
    """Turns the tree into closures, from the leaves up."""

    def disjunction(self, *tests: Test) -> Test:
        return lambda candidate: any(test(candidate) for test in tests)

    def conjunction(self, *tests: Test) -> Test:
        return lambda candidate: all(test(candidate) for test in tests)

    def negation(self, test: Test) -> Test:
        return lambda candidate: not test(candidate)

    def value(self, token: Token) -> Token:
        return token.update(value=token[1:-1]) if token.type == "STRING" else token

    def list(self, *values: Token) -> tuple[Token, ...]:
        return values

    def comparison(self, subject: Token, symbol: Token, argument: Token) -> Test:
        sign = _symbol(subject, symbol)
        values = _values_of(subject)
        if sign in _ORDERINGS:
            return _ordering(subject, values, _ORDERINGS[sign], argument)
        positive = _matching(values, argument) if sign in _PATTERN else _equal(subject, values, (argument,))
        return positive if sign in ("==", "=~") else self.negation(positive)

    def membership(self, subject: Token, symbol: Token, arguments: tuple[Token, ...]) -> Test:
        positive = _equal(subject, _values_of(subject), arguments)
        return positive if _symbol(subject, symbol) == "in" else self.negation(positive)

    def existence(self, subject: Token, symbol: Token) -> Test:
        values = _values_of(subject)
        found: Test = lambda candidate: bool(values(candidate))  # noqa: E731 - as the others
        return found if _symbol(subject, symbol) == "exists" else self.negation(found)


def _symbol(subject: Token, symbol: Token) -> str:
    sign = _SYMBOLS.get(symbol, str(symbol))
    valid = _VALID.get(subject)
    if valid is not None and sign not in valid:
        listed = ", ".join(sorted(valid))
        raise QueryError(f"{symbol} at position {_position(symbol)} can't be used with {subject}; valid: {listed}")
    return sign


def _values_of(subject: Token) -> Values:
    kind, _, name = subject.partition(":")
    if kind == "attribute":

        def attribute(candidate: Candidate) -> Collection[str]:
            instance = candidate.instance
            value = instance.attributes.get(name)
            if value is None:
                value = instance.facts.attributes.get(name)
            return () if value is None else (value,)

        return attribute
    return _BUILT_IN[subject]


_BUILT_IN: Final[dict[str, Values]] = {
    "task:group": lambda candidate: candidate.load.groups.keys(),
    "agentConnected": lambda candidate: (
        "true" if candidate.presence is not None and candidate.presence.connected else "false",
    ),
    "agentVersion": lambda candidate: (candidate.instance.facts.agent_version,),
    "ec2InstanceId": lambda candidate: (candidate.instance.managed_id,),
    "registeredAt": lambda candidate: (str(candidate.instance.registered_at),),
    "runningTasksCount": lambda candidate: (str(candidate.load.tasks),),
}


def _equal(subject: Token, values: Values, arguments: tuple[Token, ...]) -> Test:
    convert = _conversion(subject)
    if convert is None:
        wanted = frozenset(map(str, arguments))
        return lambda candidate: not wanted.isdisjoint(values(candidate))
    typed = {convert(argument) for argument in arguments}
    return lambda candidate: any(convert(value) in typed for value in values(candidate))


def _matching(values: Values, argument: Token) -> Test:
    try:
        pattern = compile_regex(str(argument))
    except BadRegex as error:
        raise QueryError(f"the pattern at position {_position(argument)} can't be used: {error}") from error
    return lambda candidate: any(pattern.fullmatch(value) is not None for value in values(candidate))


def _ordering(subject: Token, values: Values, compare: Callable[[Any, Any], bool], argument: Token) -> Test:
    convert = _conversion(subject)
    if convert is not None:
        limit = convert(argument)
        return lambda candidate: any(compare(convert(value), limit) for value in values(candidate))

    def loose(candidate: Candidate) -> bool:
        return any(compare(*_alike(value, argument)) for value in values(candidate))

    return loose


def _conversion(subject: Token) -> Callable[[str], Any] | None:
    """Return how the subject's values are read before they are compared; None: as the text they are."""
    return {"agentVersion": _version, "registeredAt": _instant, "runningTasksCount": _integer}.get(subject)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise QueryError(f"expected a whole number{_at(text)}, got {str(text)!r}") from None


def _version(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.removeprefix("v").split("-")[0].split("+")[0].split("."))
    except ValueError:
        if isinstance(text, Token):
            raise QueryError(f"expected a version such as 1.2.3{_at(text)}, got {str(text)!r}") from None
        return ()


def _instant(text: str) -> float:
    if not isinstance(text, Token):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError(f"expected an ISO 8601 date or time{_at(text)}, got {str(text)!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _alike(value: str, limit: str) -> tuple[Any, Any]:
    """Compare as numbers if both are, else as text."""
    try:
        return float(value), float(limit)
    except ValueError:
        return value, str(limit)


def _position(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _at(text: str) -> str:
    return f" at position {_position(text)}" if isinstance(text, Token) else ""
