"""`homeport webhooks`: have events sent to a URL, signed, and see how that goes."""

import json
import time
from typing import Any
from urllib.parse import urlsplit

import click

from homeport.cli.errors import CliError
from homeport.cli.options import Command, Target, json_option, target_options, types_option
from homeport.cli.output import age, print_json, print_table, say

__all__ = ["webhooks"]


@click.group(short_help="Have events sent to a URL: add, ls, test, rm.")
def webhooks() -> None:
    """Have events sent to a URL, each signed and repeated until it is taken (https://www.standardwebhooks.com).

    A webhook is a rule, an API destination and a connection of EventBridge's by one name.
    """


@webhooks.command("add", cls=Command, short_help="Add a webhook.")
@click.argument("url")
@click.option("--name", metavar="NAME", help="Its name; if not said, it is made from the URL's host.")
@click.option("--pattern", metavar="JSON", help="Only events that match this EventBridge event pattern.")
@types_option
@target_options
@json_option
def add(url: str, name: str | None, pattern: str | None, types: tuple[str, ...], target: Target, as_json: bool) -> None:
    """Have events sent to URL from now on. Prints the secret that the receiver checks signatures with, this once."""
    if pattern and types:
        raise click.UsageError("--pattern and --type can't be given both: put the types into the pattern.")
    if types:
        from homeport.cli.eventlines import DETAIL_TYPES

        pattern = json.dumps({"detail-type": [name for each in types for name in DETAIL_TYPES.get(each, (each,))]})
    answer = target.client().own("CreateWebhook", name=name or _name(url), url=url, pattern=pattern)
    if as_json:
        print_json(answer)
        return
    click.echo(f"name:    {answer['name']}")
    click.echo(f"secret:  {answer['secret']}")
    say(f"The secret is not shown again. `homeport webhooks test {answer['name']}` sends a first event.")


def _name(url: str) -> str:
    host = urlsplit(url).hostname
    if not host:
        raise CliError(f"{url} is not a URL.", hint="It begins with https://, or http:// within a private network.")
    return "".join(letter if (letter.isascii() and letter.isalnum()) or letter in ".-_" else "-" for letter in host)[
        :64
    ]


@webhooks.command("ls", cls=Command, short_help="List webhooks: how deliveries go.")
@target_options
@json_option
def ls(target: Target, as_json: bool) -> None:
    """List webhooks, and whatever else events are brought to by rules: how deliveries go, and why they fail."""
    from homeport.cli.lookup import all_pages

    listed = all_pages(target.client(), "DescribeWebhooks", "webhooks")
    if as_json:
        print_json(listed)
    elif listed:
        _print(listed)
    else:
        say("There are no webhooks. `homeport webhooks add URL` adds one.")


def _print(listed: list[dict[str, Any]]) -> None:
    now = time.time()
    print_table(
        ["NAME", "TO", "STATE", "DELIVERED", "LAST", "GIVEN UP", "LAG", "WHY"],
        (
            [
                each["name"] if each["targetId"] == "webhook" else each["id"],
                each["url"] or each["arn"].split(":", 5)[-1],
                each["state"],
                each.get("delivered", 0),
                "-" if each.get("lastDeliveredAt") is None else f"{age(now - each['lastDeliveredAt'])} ago",
                each.get("dropped", 0),
                age(each["lagS"]) if each.get("lagS") else "-",
                _why(each, now),
            ]
            for each in listed
        ),
    )


def _why(each: dict[str, Any], now: float) -> str:
    if each.get("problem"):
        again = "" if each.get("retryAt") is None else f"; again in {age(max(0.0, each['retryAt'] - now))}"
        tries = f" (attempt {each['attempts']}{again})" if each["state"] == "RETRYING" else ""
        return f"{each['problem']}{tries}"
    if each.get("dropReason"):
        return f"given up {age(now - each['lastDroppedAt'])} ago: {each['dropReason']}"
    return "-"


@webhooks.command("rm", cls=Command, short_help="Remove a webhook.")
@click.argument("name")
@target_options
def rm(name: str, target: Target) -> None:
    """Remove the webhook NAME: nothing more is sent, also not what has failed so far."""
    target.client().own("DeleteWebhook", name=name)
    say(f"{name}: removed.")


@webhooks.command("test", cls=Command, short_help="Send a test event to a webhook.")
@click.argument("name")
@target_options
@json_option
def test(name: str, target: Target, as_json: bool) -> None:
    """Send the webhook NAME a test event, once, and say how it was answered. The exit code is 1 if it wasn't taken."""
    answer = target.client().own("TestWebhook", name=name)
    if as_json:
        print_json(answer)
    elif answer["delivered"]:
        click.echo(f"taken after {answer['tookS'] * 1000:.0f} ms")
    if not answer["delivered"]:
        raise CliError(f"It wasn't taken: {answer['problem']}.")
