"""How lines of logs are shown: prefixed and coloured by task on a terminal, plain in a pipe, JSON for programs."""

import json
import sys
import zlib
from typing import IO, Any, Final

from homeport.cli.output import is_coloured, moment, say

__all__ = ["Printer"]

#: Colours that can be told apart on light and dark ground. Red is left for what is wrong.
_COLOURS: Final = (32, 33, 34, 35, 36, 92, 93, 94, 95, 96)
_RESET: Final = "\x1b[0m"
_GAP: Final = "\x1b[31m"
_MATCH: Final = "\x1b[1;31m"
#: Digits of a task's id in a prefix.
_DIGITS: Final = 8


class Printer:
    """Prints lines to where they were written to: standard output or standard error."""

    def __init__(self, *, prefix: bool = False, timestamps: bool = False, as_json: bool = False) -> None:
        self._prefix = prefix
        self._timestamps = timestamps
        self._as_json = as_json
        self._coloured = {out: is_coloured(out) for out in (sys.stdout, sys.stderr)}

    def line(self, line: dict[str, Any]) -> None:
        """Print a line, or each line of an event of several."""
        if self._as_json:
            _write(sys.stdout, json.dumps(line))
            return
        out = sys.stderr if line["stream"] == "stderr" else sys.stdout
        coloured = self._coloured[out]
        head = self._head(line, coloured=coloured)
        for text in _text(line, coloured=coloured).rstrip("\r\n").split("\n"):
            _write(out, head + text)

    def note(self, text: str) -> None:
        """Say something besides the log."""
        say(f"homeport: {text}")

    def _head(self, line: dict[str, Any], *, coloured: bool) -> str:
        head = f"{moment(line['at'])} " if self._timestamps else ""
        if self._prefix:
            task = str(line["task"])
            name = f"{line['container']}/{task[:_DIGITS]}"
            head += (
                f"\x1b[{_COLOURS[zlib.crc32(task.encode()) % len(_COLOURS)]}m{name}{_RESET} "
                if coloured
                else name + " "
            )
        return head


def _text(line: dict[str, Any], *, coloured: bool) -> str:
    text = str(line["text"])
    if line["stream"] == "gap":
        return f"{_GAP}-- {text} --{_RESET}" if coloured else f"-- {text} --"
    if not coloured:
        return text
    for begin, end in reversed(line.get("matches", ())):
        text = f"{text[:begin]}{_MATCH}{text[begin:end]}{_RESET}{text[end:]}" if end > begin else text
    return text


def _write(out: IO[str], text: str) -> None:
    # Not through click.echo: its encoding detection costs more than the line, and logs are long.
    out.write(text + "\n")
    out.flush()
