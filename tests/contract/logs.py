"""Log groups, streams and events for tests of the CloudWatch Logs API."""

from collections.abc import Iterable
from typing import Any, Final

from tests.contract.server import ACCOUNT, REGION, ApiServer

__all__ = ["DAY_MS", "GROUP", "GROUP_ARN", "HOUR_MS", "STREAM", "made", "millis", "put", "texts"]

GROUP: Final = "/homeport/web"
STREAM: Final = "homeport/web/0123456789abcdef0123456789abcdef"
GROUP_ARN: Final = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}"

HOUR_MS: Final = 3600 * 1000
DAY_MS: Final = 24 * HOUR_MS


def made(server: ApiServer) -> Any:
    """Return a boto3 client of CloudWatch Logs, with a group and a stream made."""
    logs = server.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    return logs


def millis(server: ApiServer) -> int:
    """Return the server's time in epoch milliseconds."""
    return int(server.clock.now() * 1000)


def put(logs: Any, events: Iterable[tuple[int, str]], *, stream: str = STREAM) -> dict[str, Any]:
    """Put events (time, text) into a stream of the group."""
    answer: dict[str, Any] = logs.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": at, "message": text} for at, text in events],
    )
    return answer


def texts(page: dict[str, Any]) -> list[str]:
    """Return the messages of an answer with events."""
    return [event["message"] for event in page["events"]]
