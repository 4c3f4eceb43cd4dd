"""Terms: `ERROR "not found"`, `?ERROR ?WARN`, `ERROR -DEBUG`, `%regex%`. Case-sensitive, anywhere in the message."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput

from controlplane.grammars import explain
from controlplane.logs.patterns.errors import PatternError
from controlplane.logs.patterns.regexes import regex_search
from controlplane.logs.patterns.values import check_regexes, position_of, unquote

__all__ = ["parse_terms"]

Test = Callable[[str], bool]

_EXPECTED: Final = {"WORD": "a term", "STRING": 'a "phrase"', "REGEX": "a %regular expression%"}


def parse_terms(text: str) -> Test:
    """Compile terms. Those with ? have no effect beside others, as CloudWatch documents. Raises PatternError."""
    terms = _parsed(text)
    check_regexes([term for _, term in terms])
    tests = {sign: [_test(term) for kind, term in terms if kind == sign] for sign in ("", "-", "?")}
    needed, refused, optional = tests[""], tests["-"], tests["?"]
    if optional and not needed and not refused:
        return _any(optional)
    if not refused:
        return _all(needed)
    wanted, unwanted = _all(needed), _any(refused)
    return lambda message: wanted(message) and not unwanted(message)


@cache
def _grammar() -> Lark:
    return Lark.open("terms.lark", rel_to=__file__, parser="lalr", maybe_placeholders=True)


def _parsed(text: str) -> list[tuple[str, Token]]:
    """Return each term with its sign, "" if it has none."""
    try:
        tree = _grammar().parse(text)
    except UnexpectedCharacters as err:
        raise PatternError(_explain_character(text, err.pos_in_stream)) from None
    except UnexpectedInput as err:
        raise PatternError(explain(err, text, _EXPECTED)) from None
    terms: Iterable[Any] = tree.children
    return [(str(sign or ""), token) for sign, token in (term.children for term in terms)]


def _explain_character(text: str, at: Any) -> str:
    if text[at] == '"':
        return f"the quotation mark at position {at + 1} is never closed"
    if text[at] == "%":
        return f"the regular expression at position {at + 1} is never closed with %"
    return (
        f"Invalid character(s) in term '{text[at]}' at position {at + 1}: "
        "terms that have other characters than letters, digits and _ must be in double quotation marks"
    )


def _test(term: Token) -> Test:
    if term.type == "REGEX":
        return regex_search(term[1:-1], position_of(term))
    phrase = unquote(term) if term.type == "STRING" else str(term)
    if not phrase:
        raise PatternError(f"Invalid character(s) in term '\"\"' at position {position_of(term)}: the phrase is empty")
    if phrase.isspace():
        # CloudWatch documents " " as the pattern that matches everything.
        return lambda _: True
    return lambda message: phrase in message


def _all(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda message: all(test(message) for test in tests)


def _any(tests: Sequence[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    return lambda message: any(test(message) for test in tests)
