"""`python -m tests.chaos --minutes 20 --seed 7 --out report.json`: exit status 1 if anything was lost."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Final, NoReturn

import click

from tests.chaos.plan import draw
from tests.chaos.report import as_document, as_markdown, rewritten
from tests.chaos.run import run
from tests.engine.busybox import BUSYBOX_REPOSITORY, import_image, remove_image

__all__ = ["main"]

_PAGE: Final = Path(__file__).parents[2] / "docs/reliability.md"


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.5), default=5.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Draws the faults and what clients do.")
@click.option("--hosts", type=click.IntRange(2, 9), default=3, show_default=True)
@click.option("--pace", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Clients' pauses, times.")
@click.option("--calm", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Rests after faults, times.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON report goes.")
@click.option("--page", is_flag=True, help="Write the tables into docs/reliability.md.")
@click.option("--keep-logs", is_flag=True, help="Keep the daemons' logs even if nothing was lost.")
@click.option("--plan", "show", is_flag=True, help="Print the faults and end.")
def main(
    minutes: float,
    seed: int,
    hosts: int,
    pace: float,
    calm: float,
    out: Path | None,
    page: bool,
    keep_logs: bool,
    show: bool,
) -> None:
    """Break a real cluster under load for a while, and account for everything. Needs root and Docker."""
    plan = draw(seed, minutes=minutes, hosts=[f"host-{number}" for number in range(1, hosts + 1)], calm=calm)
    for fault in plan:
        click.echo(
            f"{fault.at_s:7.1f} s  {fault.lasts_s:5.1f} s  {fault.name} on {fault.node} {fault.amount:g}", err=True
        )
    if show:
        return
    directory = Path(tempfile.mkdtemp(prefix="homeport-chaos-"))
    click.echo(f"logs: {directory}", err=True)
    image = f"{BUSYBOX_REPOSITORY}:chaos-{os.getpid()}"
    signal.signal(signal.SIGTERM, _interrupt)
    asyncio.run(import_image(image))
    try:
        result = run(directory, plan, minutes=minutes, hosts=hosts, image=image, seed=seed, pace=pace)
    finally:
        asyncio.run(remove_image(image))
    machine = {"cores": os.cpu_count(), "kernel": os.uname().release, "load_average": round(os.getloadavg()[0], 2)}
    document = as_document(result, seed=seed, minutes=minutes, hosts=hosts, machine=machine)
    if out is not None:
        out.write_text(json.dumps(document, indent=1) + "\n")
    click.echo(as_markdown(document))
    if page:
        _PAGE.write_text(rewritten(_PAGE.read_text(), as_markdown(document)))
    if not result.losses and not keep_logs:
        shutil.rmtree(directory)
    if result.losses:
        asked = (json.dumps(asdict(request)) for request in result.ledger.requests())
        (directory / "ledger.jsonl").write_text("\n".join(asked) + "\n")
    for loss in result.losses:
        click.echo(f"LOST: {loss}")
    sys.exit(1 if result.losses else 0)


def _interrupt(*_: object) -> NoReturn:
    """End as by Ctrl-C, which takes everything down that was put up."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
