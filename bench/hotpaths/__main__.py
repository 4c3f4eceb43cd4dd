"""Measure the hot paths in instructions, and check them against the last record: `make hotpaths`."""

import datetime
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

import click

from bench.hotpaths.check import LIMIT, Finding, Verdict, compare
from bench.hotpaths.measure import measure
from bench.hotpaths.paths import PATHS
from bench.hotpaths.record import RECORDS, Record, add, interpreter, read, write
from tests.packages import install_debian_package

HOW_TO_ACCEPT = """
If it has to be so, accept it, with the reason, in the commit that brings it:

    make hotpaths ARGS='--record "why it costs more now"'
"""


@click.command()
@click.option("--record", "reason", metavar="REASON", help="Keep what is measured as the record to compare with.")
@click.option("--date", help="The record's date; today unless given.", metavar="YYYY-MM-DD")
def main(reason: str | None, date: str | None) -> None:
    """Exit with status 1 if a path costs more than 20 % more than at the last record, unless it is to be recorded."""
    _ensure_valgrind()
    instructions = measure(PATHS)
    records = read()
    last = records[-1] if records else None
    findings = compare(last, instructions)
    click.echo(_table(findings, last, instructions))
    if reason is not None:
        date = date or datetime.datetime.now(datetime.UTC).date().isoformat()
        record = Record(
            commit=_commit(), date=date, reason=reason, interpreter=interpreter(), instructions=instructions
        )
        write(add(records, record))
        click.echo(f"\nrecorded in {RECORDS}")
        return
    click.echo(_conclusion(findings, last))
    if any(finding.verdict.fails for finding in findings):
        click.echo(HOW_TO_ACCEPT)
        sys.exit(1)


def _ensure_valgrind() -> None:
    if shutil.which("valgrind") is None and os.geteuid() != 0:
        raise click.ClickException("valgrind isn't installed. On Debian or Ubuntu: sudo apt-get install valgrind")
    install_debian_package("valgrind", "valgrind")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=RECORDS.parent, capture_output=True, text=True, check=True).stdout.strip()


def _table(findings: list[Finding], last: Record | None, instructions: Mapping[str, int]) -> str:
    lines = [f"{'instructions':>14} {'recorded':>14} {'step':>7}  path"]
    recorded = {} if last is None else last.instructions
    steps = {finding.path: _step(finding) for finding in findings}
    for path in {**instructions, **recorded}:
        now, then = (f"{counts[path]:,}" if path in counts else "-" for counts in (instructions, recorded))
        lines.append(f"{now:>14} {then:>14} {steps.get(path, ''):>7}  {path}")
    return "\n".join(lines)


def _step(finding: Finding) -> str:
    return "-" if finding.step is None else f"{finding.step:+.1%}"


def _conclusion(findings: list[Finding], last: Record | None) -> str:
    lines = [""]
    for finding in findings:
        if finding.verdict.fails:
            by = "" if finding.step is None else f" by {finding.step:.0%} (the limit is {LIMIT:.0%})"
            lines.append(f"FAILED  {finding.path}: {finding.verdict.value}{by}")
        elif finding.verdict is Verdict.CHEAPER:
            lines.append(f"cheaper by {-(finding.step or 0):.0%}, record it to keep it so: {finding.path}")
    if last is not None and last.interpreter != interpreter():
        lines.append(f"The record is of another interpreter, which moves steps a little: {last.interpreter}")
    return "\n".join(lines) if len(lines) > 1 else "\nno path costs more than it did"


if __name__ == "__main__":
    main()
