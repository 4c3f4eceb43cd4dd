"""What a parser stumbled over, in the words of whoever wrote the text."""

from collections.abc import Collection, Mapping

from lark.exceptions import UnexpectedInput

__all__ = ["explain"]


def explain(err: UnexpectedInput, text: str, expected: Mapping[str, str]) -> str:
    """Say what is where (counting characters from 1), and what could be; `expected` names terminals for users."""
    names: Collection[str] = getattr(err, "expected", None) or getattr(err, "allowed", None) or ()
    position = len(text) if getattr(err, "token", None) == "" else err.pos_in_stream
    wanted = list(dict.fromkeys(sentence for name, sentence in expected.items() if name in names))
    if position is None or not 0 <= position < len(text):
        where = f"it ends too early, at position {len(text) + 1}"
    else:
        # What isn't split off may be a blank that Python knows and the grammar doesn't.
        word = (text[position:].split(maxsplit=1) or [text[position:]])[0]
        where = f"unexpected {word[:40]!r} at position {position + 1}"
    return f"{where}; expected {' or '.join(wanted)}" if wanted else where
