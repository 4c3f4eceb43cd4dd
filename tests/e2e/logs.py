"""Containers that talk, and what became of it: for end-to-end tests and benchmarks of logs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["GROUP", "Kept", "awslogs", "chatter", "kept", "read_all", "task_id"]

GROUP: Final = "/e2e/chatter"

_LINE: Final = re.compile(r"line (\d+) .*")


def awslogs(group: str = GROUP, **options: str) -> dict[str, Any]:
    """A logConfiguration."""
    needed = {
        "awslogs-group": group,
        "awslogs-region": "us-east-1",
        "awslogs-stream-prefix": "ecs",
        "awslogs-create-group": "true",
    }
    return {"logDriver": "awslogs", "options": {**needed, **options}}


def chatter(image: str, *, seconds: int, per_second: int, padding: str = "x" * 60) -> dict[str, Any]:
    """A container that says `line N PADDING`, `per_second` of them in one go every second, and ends.

    It starts no more than one process a second, so that hundreds of them leave the machine to those who read.
    """
    script = (
        f"n=0; s=0; while [ $s -lt {seconds} ]; do e=$((n + {per_second})); "
        f'while [ $n -lt $e ]; do echo "line $n {padding}"; n=$((n + 1)); done; s=$((s + 1)); sleep 1; done'
    )
    return {"name": "app", "image": image, "command": ["sh", "-c", script], "memory": 16, "cpu": 0}


def task_id(arn: str) -> str:
    return arn.rsplit("/", 1)[-1]


def read_all(logs: Any, group: str, stream: str) -> Iterator[dict[str, Any]]:
    """Every event of a stream, oldest first; none if there is no stream (yet)."""
    token: dict[str, str] = {}
    while True:
        try:
            page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **token)
        except logs.exceptions.ResourceNotFoundException:
            return
        yield from page["events"]
        if page["nextForwardToken"] == token.get("nextToken"):
            return
        token = {"nextToken": page["nextForwardToken"]}


@dataclass(frozen=True)
class Kept:
    """The numbers of the lines of one chatter that were kept, in order, and what stands in between."""

    numbers: Sequence[int]
    others: Sequence[str]

    def problem(self, expected: int) -> str:
        """What is wrong: lines that are missing, doubled or out of order without a gap that says so; "" if nothing."""
        if list(self.numbers) == list(range(expected)):
            return ""
        doubled = len(self.numbers) - len(set(self.numbers))
        missing = sorted(set(range(expected)) - set(self.numbers))
        unsorted = sum(a > b for a, b in zip(self.numbers, self.numbers[1:], strict=False))
        if not doubled and not unsorted and self.others:
            return ""
        return (
            f"{len(missing)} missing ({missing[:3]}...), {doubled} doubled, {unsorted} out of order, {self.others[:2]}"
        )


def kept(logs: Any, arn: str, *, group: str = GROUP) -> Kept:
    """What is kept of a chatter's output."""
    numbers: list[int] = []
    others: list[str] = []
    for event in read_all(logs, group, f"ecs/app/{task_id(arn)}"):
        match = _LINE.fullmatch(event["message"])
        if match:
            numbers.append(int(match[1]))
        else:
            others.append(event["message"])
    return Kept(numbers, others)
