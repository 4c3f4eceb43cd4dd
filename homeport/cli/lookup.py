"""Finding what a user names by the beginning of an id (or a host's name, or an ARN), and waiting for a task."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from homeport.cli.errors import CliError, NotFound
from homeport.cli.output import console

if TYPE_CHECKING:
    from homeport.cli.client import Client

__all__ = ["all_pages", "find_node", "find_task", "progress", "wait_for_task"]

_POLL_S: Final = 0.25


def find_task(client: "Client", reference: str) -> dict[str, Any]:
    """Return the one task that `reference` means, also one in the history. Raises NotFound, or CliError if several."""
    found: list[dict[str, Any]] = client.own("FindTasks", prefix=reference)["tasks"]
    if not found:
        raise NotFound(f"There is no task {reference}.", hint="`homeport ps -a` lists tasks, stopped ones too.")
    return _only(found, reference, "tasks", lambda task: f"{task['id']} ({task['taskDefinition']})")


def find_node(client: "Client", reference: str) -> dict[str, Any]:
    """Return the one host that `reference` means, in whatever cluster. Raises NotFound, or CliError if several."""
    found = all_pages(client, "DescribeNodes", "nodes", node=reference)
    exact = [node for node in found if node["id"] == reference]
    if not found:
        raise NotFound(f"There is no node {reference}.", hint="`homeport nodes` lists them.")
    return _only(exact or found, reference, "nodes", lambda node: f"{node['id']} ({node['hostname']})")


def all_pages(client: "Client", operation: str, member: str, **parameters: Any) -> list[dict[str, Any]]:
    """Return the whole list `member` of one of our paged operations."""
    found: list[dict[str, Any]] = []
    token = None
    while True:
        answer = client.own(operation, nextToken=token, **parameters)
        found += answer[member]
        token = answer.get("nextToken")
        if token is None:
            return found


def _only(
    found: list[dict[str, Any]], reference: str, what: str, describe: Callable[[dict[str, Any]], str]
) -> dict[str, Any]:
    if len(found) > 1:
        some = ", ".join(describe(each) for each in found[:5])
        raise CliError(f"{reference} could mean several {what}: {some}.", hint="Give more of the id.")
    return found[0]


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on a terminal while the block runs; yields a function that changes its text. Else nothing."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda _text: None
        return
    with out.status(text) as status:
        yield lambda text: status.update(text)


def wait_for_task(client: "Client", task_id: str, status: str, *, timeout_s: float) -> dict[str, Any]:
    """Return the task once it is at `status` (RUNNING or STOPPED) or has stopped before; shows how far it is.

    Raises CliError after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    with progress(f"waiting for task {task_id[:12]}") as show:
        while True:
            answer = client.own("DescribeStory", task=task_id)
            task: dict[str, Any] = answer["task"]
            if task["lastStatus"] in (status, "STOPPED"):
                return task
            if answer["lines"]:
                show(f"{task['lastStatus']}: {answer['lines'][-1]['message']}")
            if time.monotonic() > deadline:
                raise CliError(
                    f"The task {task_id} is still {task['lastStatus']} after {timeout_s:g} s.",
                    hint=f"What it waits for: homeport story {task_id[:12]}",
                )
            time.sleep(_POLL_S)
