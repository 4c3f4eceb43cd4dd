"""Regular expressions that users write: RE2's, whose searches take linear time whatever is asked for."""

from typing import Any

import re2

from homeport.errors import HomeportError

__all__ = ["BadRegex", "compile_regex"]


class BadRegex(HomeportError):
    """A regular expression can't be used. The text, RE2's own words, says why."""


def compile_regex(text: str | bytes, *, max_bytes: int | None = None) -> Any:
    """Compile an expression, one of bytes for bytes. `max_bytes`: the memory it may take. Raises BadRegex."""
    options = re2.Options()
    options.log_errors = False
    if max_bytes is not None:
        options.max_mem = max_bytes
    try:
        return re2.compile(text, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise BadRegex(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None
