"""Regular expressions in patterns: %...%, with the characters and operators that CloudWatch documents."""

import re
from collections.abc import Callable
from typing import Final

from controlplane.logs.patterns.errors import PatternError
from controlplane.regexes import BadRegex, compile_regex

__all__ = ["MAX_REGEXES", "regex_search"]

#: Regular expressions in one pattern.
MAX_REGEXES: Final = 2

_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 :_#=@/;,-")
_OPERATORS: Final = frozenset("^$?[]{}|\\*+.")
_ESCAPE: Final = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|[dDsSwW]|[\^$?\[\]{}|\\*+.:_#=@/;,-])")


def regex_search(text: str, position: int) -> Callable[[str], bool]:
    """Return a test whether an expression (without its %) is found somewhere in a text.

    `position`: where it stands in its pattern, from 1. Raises PatternError.
    """
    if not text:
        raise PatternError(f"the regular expression at position {position} is empty")
    _check_characters(text, position + 1)
    try:
        # Of bytes, in UTF-8 all the same: of text, re2 counts characters for each match, which takes as long again.
        search = compile_regex(text.encode()).search
    except BadRegex as error:
        raise PatternError(f"the regular expression at position {position} can't be used: {error}") from error
    return lambda message: search(message.encode(errors="replace")) is not None


def _check_characters(text: str, position: int) -> None:
    at = 0
    while at < len(text):
        if text[at] == "\\":
            escape = _ESCAPE.match(text, at)
            if escape is None:
                raise PatternError(
                    f"'{text[at : at + 2]}' at position {position + at} is no escape that regular expressions can have;"
                    r" write other characters as \xhh"
                )
            at = escape.end()
        elif text[at] in _PLAIN or text[at] in _OPERATORS:
            at += 1
        else:
            raise PatternError(
                f"{text[at]!r} at position {position + at} can't be used in a regular expression; letters, digits,"
                r" blanks, : _ # = @ / ; , - and the operators ^ $ ? [ ] { } | \ * + . can; write others as \xhh"
            )
