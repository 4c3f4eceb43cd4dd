"""From a query's text to its tree. Pure; the grammar is in query.lark."""

import re
from functools import cache
from typing import Any, Final

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, VisitError
from lark.tree import Meta

from controlplane.logs.insights.syntax import (
    Among,
    Arithmetic,
    Boolean,
    Call,
    Command,
    Compare,
    Dedup,
    Display,
    Expression,
    Field,
    Fields,
    Filter,
    Like,
    Limit,
    Literal,
    MalformedQuery,
    Not,
    Output,
    Parse,
    Pattern,
    Period,
    Sort,
    SortKey,
    Span,
    Stats,
)

__all__ = ["COMMANDS", "MAX_LIMIT", "MAX_QUERY_LENGTH", "UNSUPPORTED", "field_of", "parse_query", "spaceless"]

#: CloudWatch's limits: characters of a query, and rows that it may give.
MAX_QUERY_LENGTH: Final = 10_000
MAX_LIMIT: Final = 100_000

COMMANDS: Final = ("fields", "display", "filter", "parse", "stats", "sort", "limit", "dedup")
#: What Logs Insights has and Homeport doesn't: refused by name.
UNSUPPORTED: Final = frozenset(
    ("anomaly", "diff", "filterindex", "join", "lookup", "pattern", "search", "source", "tail", "unmask", "unnest")
)
_EXPECTED: Final = {
    "FIELD": "a field",
    "NUMBER": "a number",
    "STRING": "a text in quotes",
    "REGEX": "a regular expression between slashes",
    "COMPARATOR": "a comparison",
    "_AS": "'as'",
    "VBAR": "'|'",
    "COMMA": "','",
    "LPAR": "'('",
    "RPAR": "')'",
    "RSQB": "']'",
}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\"}
_PART: Final = re.compile(r"`([^`]+)`|\[(\d+)\]|([^.\[\]`]+)")


def parse_query(text: str) -> tuple[Command, ...]:
    """Parse a query. Raises MalformedQuery."""
    if len(text) > MAX_QUERY_LENGTH:
        raise MalformedQuery(
            f"the query has {len(text)} characters; {MAX_QUERY_LENGTH} are allowed", MAX_QUERY_LENGTH, len(text)
        )
    try:
        commands: tuple[Command, ...] = _Builder(text).transform(_grammar().parse(text))
    except RecursionError:
        raise MalformedQuery("the query is nested too deeply", 0, len(text)) from None
    except VisitError as err:
        if isinstance(err.orig_exc, MalformedQuery):
            raise err.orig_exc from None
        if isinstance(err.orig_exc, RecursionError):
            raise MalformedQuery("the query is nested too deeply", 0, len(text)) from None
        raise
    except UnexpectedInput as err:
        raise _unexpected(err, text) from None
    return commands


@cache
def _grammar() -> Lark:
    return Lark.open("query.lark", rel_to=__file__, parser="lalr", maybe_placeholders=True, propagate_positions=True)


def _unexpected(err: UnexpectedInput, text: str) -> MalformedQuery:
    names = set(getattr(err, "accepts", None) or getattr(err, "expected", None) or getattr(err, "allowed", None) or ())
    position: int | None = getattr(err, "pos_in_stream", None)
    if position is None or getattr(err, "token", None) == "" or not 0 <= position < len(text):
        return MalformedQuery(_wanted("the query ends too early", names), len(text), len(text))
    word = re.match(r"[`@\w.]+|\S", text[position:])
    found = word.group() if word else text[position]
    if "_FILTER" in names:
        known = ", ".join(COMMANDS)
        if found.lower() in UNSUPPORTED:
            message = f"the command {found} isn't supported by Homeport; supported: {known}"
        else:
            message = f"unexpected {found[:40]!r}, expected a command: {known}"
        return MalformedQuery(message, position, position + len(found))
    return MalformedQuery(_wanted(f"unexpected {found[:40]!r}", names), position, position + len(found))


def _wanted(what: str, names: set[str]) -> str:
    if "_FILTER" in names:
        return f"{what}; expected a command: {', '.join(COMMANDS)}"
    wanted = [sentence for name, sentence in _EXPECTED.items() if name in names]
    return f"{what}; expected {' or '.join(wanted)}" if wanted else what


def field_of(token: str, span: Span) -> Field:
    """Make a field of how it is written: `a.b`, `a[0]`, or with backticks around parts."""
    token = str(token)
    if not re.search(r"[.`\[]", token):
        return Field(span, token, (token,))
    path = tuple(quoted or index or plain for quoted, index, plain in _PART.findall(token))
    return Field(span, token.replace("`", ""), path)


def spaceless(text: str) -> str:
    """Return how an expression is compared with a column's name: without white space."""
    return re.sub(r"\s", "", text).lower()


def _unquoted(token: str) -> str:
    return re.sub(r"\\([\s\S])", lambda m: _ESCAPES.get(m[1], m[0]), token[1:-1])


@v_args(meta=True, inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes the tree of lark's, from the leaves up."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def start(self, _meta: Meta, *commands: Command) -> tuple[Command, ...]:
        return commands

    # ------------------------------------------------------------ commands

    def fields(self, _meta: Meta, outputs: tuple[Output, ...]) -> Fields:
        return Fields(outputs)

    def display(self, _meta: Meta, outputs: tuple[Output, ...]) -> Display:
        return Display(outputs)

    def filter(self, _meta: Meta, condition: Expression) -> Filter:
        return Filter(condition)

    def parse_glob(self, meta: Meta, subject: Token | None, glob: Token, names: tuple[Field, ...]) -> Parse:
        pattern = Pattern(_at(glob), _unquoted(glob), regex=False)
        stars = pattern.text.count("*")
        if stars != len(names):
            raise MalformedQuery(
                f"parse: the pattern has {stars} *, but {len(names)} names are given",
                pattern.span.start,
                pattern.span.end,
            )
        return Parse(_subject(subject, meta), pattern, tuple(name.name for name in names))

    def parse_regex(self, meta: Meta, subject: Token | None, regex: Token) -> Parse:
        return Parse(_subject(subject, meta), _regex(regex), ())

    def stats(self, meta: Meta, outputs: tuple[Output, ...], by: tuple[Output, ...] | None) -> Stats:
        return Stats(_span(meta), outputs, by or ())

    def sort(self, _meta: Meta, keys: tuple[SortKey, ...]) -> Sort:
        return Sort(keys)

    def limit(self, _meta: Meta, count: Token) -> Limit:
        if not count.isdecimal() or not 1 <= int(count) <= MAX_LIMIT:
            raise MalformedQuery(
                f"limit must be a whole number between 1 and {MAX_LIMIT}, but was {count}", *_offsets(count)
            )
        return Limit(int(count))

    def dedup(self, _meta: Meta, names: tuple[Field, ...]) -> Dedup:
        return Dedup(names)

    def outputs(self, _meta: Meta, *outputs: Output) -> tuple[Output, ...]:
        return outputs

    def output(self, meta: Meta, expression: Expression, alias: Token | None) -> Output:
        if alias is not None:
            return Output(expression, field_of(alias, _at(alias)).name)
        if isinstance(expression, Field):
            return Output(expression, expression.name)
        return Output(expression, self._written(meta))

    def names(self, _meta: Meta, *names: Token) -> tuple[Field, ...]:
        return tuple(field_of(name, _at(name)) for name in names)

    def keys(self, _meta: Meta, *keys: SortKey) -> tuple[SortKey, ...]:
        return keys

    def key(self, _meta: Meta, expression: Expression, direction: Token | None) -> SortKey:
        return SortKey(expression, direction is not None and direction.lower() == "desc")

    # ------------------------------------------------------------ expressions

    def disjunction(self, meta: Meta, *operands: Expression) -> Boolean:
        return Boolean(_span(meta), "or", operands)

    def conjunction(self, meta: Meta, *operands: Expression) -> Boolean:
        return Boolean(_span(meta), "and", operands)

    def inverse(self, meta: Meta, operand: Expression) -> Not:
        return Not(_span(meta), operand)

    def compare(self, meta: Meta, left: Expression, operator: Token, right: Expression) -> Compare:
        return Compare(_span(meta), str(operator), left, right)

    def among(self, meta: Meta, subject: Expression, negated: Token | None, values: tuple[Expression, ...]) -> Among:
        return Among(_span(meta), subject, values, negated is not None)

    def like(self, meta: Meta, subject: Expression, negated: Token | None, pattern: Pattern) -> Like:
        return Like(_span(meta), subject, pattern, negated is not None)

    def matches(self, meta: Meta, subject: Expression, pattern: Pattern) -> Like:
        return Like(_span(meta), subject, Pattern(pattern.span, pattern.text, regex=True), negated=False)

    def list(self, _meta: Meta, *values: Expression) -> tuple[Expression, ...]:
        return values

    def pattern(self, _meta: Meta, token: Token) -> Pattern:
        return _regex(token) if token.type == "REGEX" else Pattern(_at(token), _unquoted(token), regex=False)

    def arithmetic(self, meta: Meta, left: Expression, operator: Token, right: Expression) -> Arithmetic:
        return Arithmetic(_span(meta), str(operator), left, right)

    def minus(self, meta: Meta, operand: Expression) -> Expression:
        if isinstance(operand, Literal) and isinstance(operand.value, int | float):
            return Literal(_span(meta), -operand.value)
        return Arithmetic(_span(meta), "-", Literal(_span(meta), 0), operand)

    def number(self, meta: Meta, token: Token) -> Literal:
        return Literal(_span(meta), int(token) if token.isdecimal() else float(token))

    def period(self, meta: Meta, token: Token) -> Literal:
        return Literal(_span(meta), _period(token))

    def text(self, meta: Meta, token: Token) -> Literal:
        return Literal(_span(meta), _unquoted(token))

    def field(self, meta: Meta, token: Token) -> Field | Literal:
        if token.lower() in ("true", "false"):
            return Literal(_span(meta), token.lower() == "true")
        return field_of(token, _at(token))

    def call(self, meta: Meta, name: Token, arguments: tuple[Expression, ...] | str | None) -> Call:
        star = arguments == "*"
        given = () if star or arguments is None else arguments
        assert not isinstance(given, str)
        return Call(_span(meta), name.lower(), given, spaceless(self._written(meta)), star)

    def arguments(self, _meta: Meta, *arguments: Expression) -> tuple[Expression, ...]:
        return arguments

    def star(self, _meta: Meta) -> str:
        return "*"

    def _written(self, meta: Meta) -> str:
        return self._text[meta.start_pos : meta.end_pos].replace("`", "").strip()


def _subject(token: Token | None, meta: Meta) -> Field:
    return field_of("@message", _span(meta)) if token is None else field_of(token, _at(token))


def _regex(token: Token) -> Pattern:
    return Pattern(_at(token), token[1:-1].replace("\\/", "/"), regex=True)


def _period(token: Token) -> Period:
    match = re.match(r"(\d+)\s*(\w+)", token)
    assert match is not None
    count, unit = int(match[1]), match[2].lower()
    if not 1 <= count <= 100_000:
        raise MalformedQuery(f"the period {token} can't be used: 1 to 100000 units are allowed", *_offsets(token))
    for short in ("ms", "mo", "s", "m", "h", "d", "w", "q", "y"):
        if unit == short or (unit.startswith(short) and short not in ("m", "s") and len(unit) > len(short)):
            return Period(count, short)
    return Period(count, {"mil": "ms", "mse": "ms", "sec": "s", "min": "m"}[unit[:3]])


def _span(meta: Meta) -> Span:
    return Span(meta.start_pos, meta.end_pos)


def _offsets(token: Token) -> tuple[int, int]:
    start = token.start_pos or 0
    return start, start + len(token)


def _at(token: Token) -> Span:
    return Span(*_offsets(token))
