"""The simulator's part of docs/reliability.md: its figures, and the deliberate bugs it must find."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.simulation.mutations import MUTATIONS

__all__ = ["PAGE", "figures", "mutations", "rewritten"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"


def mutations() -> str:
    """Return the table of deliberate bugs."""
    rows = [f"| {bug.name} | {bug.what} | {bug.within} |" for bug in MUTATIONS]
    return "\n".join(["| bug | what is wrong | found within, seeds |", "| --- | --- | --- |", *rows])


def figures(found: Mapping[str, Any]) -> str:
    """Return the figures of a run as a table."""
    faults = ", ".join(f"{kind} {count:,}" for kind, count in found["faults_by_kind"].items())
    rows = [
        ("seeds, of which failed", f"{found['seeds']:,}, {len(found['failed']):,}"),
        ("virtual hours", f"{found['virtual_hours']:,.0f}"),
        ("steps (between two awaits)", f"{found['steps']:,}"),
        ("commits", f"{found['commits']:,}"),
        ("requests, of which answered", f"{found['requests']:,}, {found['answered']:,}"),
        ("faults", f"{found['faults']:,}: {faults}"),
        ("writes that were torn", f"{found['torn_writes']:,}"),
        ("took", f"{found['seconds'] / 60:.0f} minutes in {found['jobs']} processes"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def rewritten(page: str, part: str, table: str) -> str:
    """Return the page with a table between the comments that begin and end a part. ValueError if they aren't there."""
    begin, end = f"<!-- {part}: written by make simulate ARGS=--page -->", f"<!-- end of {part} -->"
    head, found, rest = page.partition(begin)
    _, also, tail = rest.partition(end)
    if not found or not also:
        raise ValueError(f"the page has no place for {part}")
    return f"{head}{begin}\n{table}\n{end}{tail}"
