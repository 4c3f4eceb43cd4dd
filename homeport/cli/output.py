"""How the command line shows things: tables and sentences for people, JSON for programs.

Answers go to stdout, everything said besides them to stderr. On a terminal tables fit its width; in a pipe nothing is
cut, so that `| grep` and `| awk` see whole ids.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["age", "console", "is_coloured", "mib", "moment", "print_json", "print_table", "say", "short_id", "vcpu"]

#: Columns of a table that nobody looks at on a terminal.
_PIPE_WIDTH: Final = 400
#: The last column of a table is folded to no less than this on a narrow terminal.
_LAST_COLUMN_WIDTH: Final = 20
SHORT_ID_LENGTH: Final = 12


def console(*, stderr: bool = False, at_least: int = 0) -> "Console":
    """Return a rich console on stdout or stderr as they are now, `at_least` columns wide."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    out = Console(file=stream, highlight=False, emoji=False, width=None if stream.isatty() else _PIPE_WIDTH)
    if out.width < at_least:
        out.width = at_least
    return out


def is_coloured(out: IO[str]) -> bool:
    """Tell whether colours may be used there (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(document: Any) -> None:
    """Print a document as indented JSON."""
    click.echo(json.dumps(document, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    timestamp = getattr(value, "timestamp", None)
    if callable(timestamp):
        return timestamp()
    raise TypeError(f"can't be shown as JSON: {value!r}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table without lines. The last column takes what room is left; no other one is ever cut."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(cell_len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    needed = sum(widths[:-1]) + 2 * (len(columns) - 1) + min(widths[-1], _LAST_COLUMN_WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], overflow="fold")
    for row in cells:
        # As Text: what users name things must not be read as markup.
        table.add_row(*(Text(cell) for cell in row))
    out = console(at_least=needed)
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as capture:
        out.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def say(text: str) -> None:
    """Say something besides the answer, on stderr."""
    click.echo(text, err=True)


def short_id(full: str) -> str:
    """Return the beginning of an id, enough to name it by; takes an ARN too."""
    return full.rsplit("/", 1)[-1][:SHORT_ID_LENGTH]


def age(seconds: float) -> str:
    """Render a length of time in its two largest units: `3d4h`, `5m10s`, `0s`."""
    left = max(int(seconds), 0)
    parts = []
    for letter, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{letter}")
        elif parts:
            break
    return "".join(parts[:2]) or "0s"


def moment(epoch_s: float) -> str:
    """Render a time in the local time zone, to the millisecond: `2026-01-31 12:00:00.000`."""
    from datetime import UTC, datetime

    local = datetime.fromtimestamp(epoch_s, UTC).astimezone()
    return local.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def vcpu(units: float) -> str:
    """Render CPU units (1,024 per vCPU) as vCPUs: `0.25`, `2`."""
    return f"{units / 1024:.2f}".rstrip("0").rstrip(".")


def mib(amount: float) -> str:
    """Render MiB as MiB or GiB: `512 MiB`, `3.8 GiB`."""
    return f"{amount:.0f} MiB" if amount < 1024 else f"{amount / 1024:.1f} GiB".replace(".0 ", " ")
