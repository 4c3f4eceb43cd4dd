"""What is wrong with a pattern, and where."""

from collections.abc import Collection, Mapping

from lark.exceptions import UnexpectedInput

__all__ = ["PatternError", "explain"]


class PatternError(ValueError):
    """A filter pattern can't be used; the text says where (counting characters from 1) and why."""


def explain(err: UnexpectedInput, text: str, expected: Mapping[str, str]) -> str:
    """Say what the parser stumbled over; `expected` names terminals in the user's words."""
    names: Collection[str] = getattr(err, "expected", None) or getattr(err, "allowed", None) or ()
    position = len(text) if getattr(err, "token", None) == "" else err.pos_in_stream
    wanted = list(dict.fromkeys(sentence for name, sentence in expected.items() if name in names))
    if position is None or not 0 <= position < len(text):
        where = f"it ends too early, at position {len(text) + 1}"
    else:
        where = f"unexpected {_word(text[position:])!r} at position {position + 1}"
    return f"{where}; expected {' or '.join(wanted)}" if wanted else where


def _word(text: str) -> str:
    # What isn't split off may be a blank that Python knows and the grammar doesn't.
    return (text.split(maxsplit=1) or [text])[0][:40]
