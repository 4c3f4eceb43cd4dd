"""JSON patterns: `{ $.status = 5* && ($.user.id IS NULL || $.tags[*] = "x") }`. Other messages never match."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, VisitError

from controlplane.grammars import explain
from controlplane.logs.patterns.errors import PatternError
from controlplane.logs.patterns.values import check_regexes, condition, position_of

__all__ = ["parse_properties"]

#: Selectors with a [*] or .* that a pattern can have; each can have one.
MAX_WILDCARDS: Final = 3

Test = Callable[[Any], bool]
#: A key, an index, or None: every one.
Step = str | int | None

_EXPECTED: Final = {
    "SELECTOR": "a selector such as $.name or $.list[0]",
    "OPERATOR": "an operator (=, !=, >, >=, <, <=)",
    "_IS": "IS NULL, IS TRUE or IS FALSE",
    "_NOT": "NOT EXISTS",
    "_EXISTS": "EXISTS",
    "CONSTANT": "NULL, TRUE or FALSE",
    "BARE": "a value",
    "RBRACE": "'}'",
    "RPAR": "')'",
    "__ANON_0": "'||'",
    "__ANON_1": "'&&'",
}
_STEP: Final = re.compile(r"\[\s*(?:(\d+)|(\*)|'([^']*)'|\"([^\"]*)\")\s*\]|\.(?:([\w@-]+)|(\*))")
_decode: Final = msgspec.json.Decoder().decode


def parse_properties(text: str) -> Callable[[str], bool]:
    """Compile a JSON pattern. Raises PatternError."""
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as err:
        raise PatternError(explain(err, text, _EXPECTED)) from None
    tokens = list(tree.scan_values(lambda value: isinstance(value, Token)))
    check_regexes(tokens)
    _check_wildcards(tokens)
    try:
        test: Test = _Compiler().transform(tree)
    except VisitError as err:
        if isinstance(err.orig_exc, PatternError):
            raise err.orig_exc from None
        raise

    def matches(message: str) -> bool:
        try:
            return test(_decode(message))
        except (msgspec.MsgspecError, RecursionError):
            return False

    return matches


@cache
def _grammar() -> Lark:
    return Lark.open("properties.lark", rel_to=__file__, parser="lalr", maybe_placeholders=False)


def _check_wildcards(tokens: Sequence[Token]) -> None:
    found = [token for token in tokens if token.type == "SELECTOR" and None in _steps(token)]
    for token in found:
        if _steps(token).count(None) > 1:
            raise PatternError(f"the selector at position {position_of(token)} has more than one *; one is allowed")
    if len(found) > MAX_WILDCARDS:
        raise PatternError(
            f"a pattern can have {MAX_WILDCARDS} selectors with *; there is one more at position "
            f"{position_of(found[MAX_WILDCARDS])}"
        )


def _steps(selector: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    for index, every, single, double, name, every_name in _STEP.findall(selector):
        steps.append(int(index[:18]) if index else None if every or every_name else single or double or name)
    return tuple(steps)


@v_args(inline=True)
class _Compiler(Transformer[Token, Test]):
    """Turns the tree into closures over the decoded message, from the leaves up."""

    def start(self, test: Test) -> Test:
        return test

    def disjunction(self, *tests: Test) -> Test:
        return lambda document: any(test(document) for test in tests)

    def conjunction(self, *tests: Test) -> Test:
        return lambda document: all(test(document) for test in tests)

    def comparison(self, selector: Token, symbol: Token, operand: Token) -> Test:
        test = condition(symbol, operand)

        def compare(value: Any) -> bool:
            # Neither objects, arrays, null nor booleans compare with anything.
            return isinstance(value, str | int | float) and not isinstance(value, bool) and test(value)

        return _on(selector, compare)

    def constant(self, selector: Token, name: Token) -> Test:
        wanted = {"null": None, "true": True, "false": False}[name.lower()]
        return _on(selector, lambda value: value is wanted)

    def absence(self, selector: Token) -> Test:
        exists = _on(selector, lambda _: True)
        return lambda document: not exists(document)


def _on(selector: Token, test: Test) -> Test:
    """Return a test of a document: does any value that the selector finds pass?"""
    for step in reversed(_steps(selector)):
        test = _below(step, test)
    return test


def _below(step: Step, test: Test) -> Test:
    if step is None:

        def every(node: Any) -> bool:
            below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            return any(test(value) for value in below)

        return every
    if isinstance(step, int):
        return lambda node: isinstance(node, list) and step < len(node) and test(node[step])
    return lambda node: isinstance(node, dict) and step in node and test(node[step])
