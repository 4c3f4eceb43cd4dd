"""`homeport query`: ask Logs Insights."""

import time
from typing import TYPE_CHECKING, Any, Final

import click

from homeport.cli.durations import MOMENT
from homeport.cli.errors import CliError, NotFound
from homeport.cli.options import Command, Target, json_option, target_options
from homeport.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["query"]

#: What is asked about when nothing says from when on.
_RECENT_S: Final = 3600.0
#: Rows that are shown unless one says how many: those that a person reads.
_ROWS: Final = 1000
_MAX_ROWS: Final = 100_000
#: Seconds between two looks at a query, growing up to the last.
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_POINTER: Final = "@ptr"


@click.command(cls=Command, short_help="Ask Logs Insights about log groups.")
@click.argument("groups", metavar="GROUP...", nargs=-1, required=True)
@click.argument("text", metavar="QUERY")
@click.option("--since", type=MOMENT, help="From when on: 10m, or 2026-01-31T12:00 [default: 1h].")
@click.option("--until", type=MOMENT, help="Up to when: 5m, or 2026-01-31T12:30 [default: now].")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, _MAX_ROWS),
    default=_ROWS,
    show_default=True,
    metavar="ROWS",
    help="How many rows at most.",
)
@target_options
@json_option
def query(
    groups: tuple[str, ...],
    text: str,
    since: float | None,
    until: float | None,
    limit: int,
    target: Target,
    as_json: bool,
) -> None:
    """Ask a query in Logs Insights' language about the events of log groups; a GROUP may end with * to mean several.

    For example: homeport query '/homeport/*' 'filter @message like /error/ | stats count(*) by @log, bin(5m)'
    """
    client = target.client()
    end = time.time() if until is None else until
    asked = {
        "logGroupNames": _groups(client, groups),
        "startTime": max(int(end - _RECENT_S if since is None else since), 0),
        "endTime": max(int(end), 0),
        "queryString": text,
        "limit": limit,
    }
    query_id = client.logs("start_query", **asked)["queryId"]
    try:
        answer = _result(client, query_id)
    except KeyboardInterrupt:
        client.logs("stop_query", queryId=query_id)
        raise
    rows = [{each["field"]: each["value"] for each in row} for row in answer["results"]]
    if answer["status"] != "Complete":
        reason = rows[0].get("@reason", "") if rows else ""
        raise CliError(f"The query ended as {answer['status']}{': ' if reason else ''}{reason}.")
    if as_json:
        print_json({"rows": rows, "statistics": answer["statistics"]})
        return
    _show(rows)
    say(_summary(rows, answer["statistics"]))


def _groups(client: "Client", patterns: tuple[str, ...]) -> list[str]:
    """Return the names of the groups that were named. Raises NotFound."""
    names: list[str] = []
    for pattern in patterns:
        if not pattern.endswith("*"):
            names.append(pattern)
            continue
        prefix = pattern.rstrip("*")
        found = _all_groups(client, prefix)
        if not found:
            raise NotFound(f"There is no log group whose name begins with {prefix!r}.")
        names += found
    return list(dict.fromkeys(names))


def _all_groups(client: "Client", prefix: str) -> list[str]:
    names: list[str] = []
    token: str | None = None
    while True:
        page = client.logs("describe_log_groups", logGroupNamePrefix=prefix or None, nextToken=token)
        names += [group["logGroupName"] for group in page["logGroups"]]
        token = page.get("nextToken")
        if token is None:
            return names


def _result(client: "Client", query_id: str) -> dict[str, Any]:
    """Wait for a query's end and return its answer with the rows of all pages."""
    looks = 0
    while (answer := client.logs("get_query_results", queryId=query_id))["status"] in ("Scheduled", "Running"):
        time.sleep(_PAUSES_S[min(looks, len(_PAUSES_S) - 1)])
        looks += 1
    page = answer
    while "nextToken" in page:
        page = client.logs("get_query_results", queryId=query_id, nextToken=page["nextToken"])
        answer["results"] += page["results"]
    return answer


def _show(rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row if name != _POINTER))
    if columns:
        print_table(columns, [[_line(row.get(name, "")) for name in columns] for row in rows])


def _line(value: str) -> str:
    """A row is a line, whatever the message."""
    return value.rstrip("\n").replace("\n", "⏎").replace("\t", " ")


def _summary(rows: list[dict[str, str]], statistics: dict[str, float]) -> str:
    scanned, matched = (int(statistics[name]) for name in ("recordsScanned", "recordsMatched"))
    size = statistics["bytesScanned"]
    read = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
    return f"{len(rows)} row{'' if len(rows) == 1 else 's'}; {matched} of {scanned} events matched, {read} read"
