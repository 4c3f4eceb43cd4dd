"""`homeport events`: what happens to tasks, services, deployments and hosts."""

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.absence import Absence, is_absence
from homeport.cli.durations import MOMENT
from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options, types_option
from homeport.cli.output import say

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["events"]

_PATH: Final = "/homeport/v1/events"
#: What is shown when nothing says from when on.
_RECENT_S: Final = 3600.0


@click.command(cls=Command, short_help="Show what happens to tasks, services, deployments and hosts.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what happens, until Ctrl-C.")
@click.option("--since", type=MOMENT, help="From when on: 10m, or 2026-01-31T12:00 [default: 1h; with -f from now on].")
@click.option("--cluster", metavar="NAME", help="Only those of a cluster.")
@click.option("--service", metavar="NAME", help="Only those of a service, its tasks' included.")
@click.option("--task", metavar="TASK", help="Only those of a task: the beginning of its id, or its ARN.")
@types_option
@click.option("--pattern", metavar="JSON", help="Only those that match an EventBridge event pattern.")
@target_options
@json_option
def events(
    follow: bool,
    since: float | None,
    cluster: str | None,
    service: str | None,
    task: str | None,
    types: tuple[str, ...],
    pattern: str | None,
    target: Target,
    as_json: bool,
) -> None:
    """Show the events of the last hour, or since when you say; with -f what happens from now on.

    When the control plane is restarted, what is followed goes on where it was. With --json each line is an EventBridge
    document. Deployments are service actions, too, in ECS; as such they are shown only with --type or --json.
    """
    from homeport.cli.eventlines import line_of, says_again, show

    query: dict[str, Any] = {
        "cluster": cluster,
        "service": service,
        "task": task,
        "type": types,
        "pattern": pattern,
        "follow": "true" if follow else "false",
    }
    if since is None and not follow:
        since = time.time() - _RECENT_S
    if since is not None:
        query["since"] = repr(since)
    wanted = {name: value for name, value in query.items() if value}
    for event in _stream(target.client(), wanted, follow=follow):
        if as_json:
            sys.stdout.write(json.dumps(event, separators=(",", ":")) + "\n")
            sys.stdout.flush()
        elif types or not says_again(event):
            show(line_of(event))


def _stream(client: "Client", query: dict[str, Any], *, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield the documents. One that is followed goes on where it was when the control plane has been away."""
    reader = _Reader(client, query, follow=follow)
    absence = Absence()
    while True:
        try:
            yield from reader.read()
            if not follow:
                return
        except CliError as error:
            if not (follow and reader.has_begun and (is_absence(error) or reader.begin_anew(error))):
                raise
        absence.wait(anew=reader.moved)


class _Reader:
    """Reads the stream on from where it was."""

    def __init__(self, client: "Client", query: dict[str, Any], *, follow: bool) -> None:
        self._client = client
        self._query = query
        self._follow = follow
        #: Whether there has been an answer at all, and whether the present attempt has got one.
        self.has_begun = False
        self.moved = False

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield documents until the stream ends. Raises CliError, CannotConnect if the control plane goes away."""
        self.moved = False
        for number, event, data in self._client.server_sent(_PATH, self._query, follow=self._follow):
            self.has_begun = self.moved = True
            self._query.pop("since", None)
            self._query["after"] = str(number)
            if event == "homeport.gap":
                say(f"homeport: the events {data['after'] + 1} to {data['oldest'] - 1} are gone")
            elif event:
                yield data

    def begin_anew(self, error: CliError) -> bool:
        """Go on from the next place there is if that which was reached is gone; else return False."""
        if error.code not in ("EventsExpired", "EventsUnknown"):
            return False
        say(f"homeport: {error.message}")
        if error.code == "EventsExpired":
            self._query["after"] = "0"
        else:
            del self._query["after"]
        return True
