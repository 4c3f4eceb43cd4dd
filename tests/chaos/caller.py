"""A client as users write them: it repeats what was not answered, with the same token, and gives up in the end."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tests.chaos.ledger import Ledger, Outcome, Request

__all__ = ["Caller"]

_PATIENCE_S: Final = 25.0
_PAUSE_S: Final = 0.5
_SERVER_ERROR: Final = 500

#: Operations with a clientToken.
_TOKENS: Final = frozenset({"run_task", "create_service"})
#: Operation -> how to find in its answer what it made.
_MADE: Final[Mapping[str, Callable[[dict[str, Any]], Sequence[str]]]] = {
    "run_task": lambda answer: [task["taskArn"] for task in answer["tasks"]],
    "create_service": lambda answer: [answer["service"]["serviceArn"]],
}


class Caller:
    """One client; its requests are in the ledger. For one thread."""

    def __init__(self, client: Any, ledger: Ledger, *, gave_up: threading.Event) -> None:
        self._client = client
        self._ledger = ledger
        self._gave_up = gave_up

    def call(self, operation: str, token: str, /, *, meant: dict[str, Any] | None = None, **members: Any) -> Request:
        """Make a request; return once it has been answered, or given up after 25 s."""
        if operation in _TOKENS:
            members["clientToken"] = token
        request = Request(operation=operation, token=token, meant=meant or {}, sent=members, at=time.monotonic())
        self._ledger.enter(request)
        while not self._attempt(request):
            if time.monotonic() - request.at > _PATIENCE_S or self._gave_up.wait(_PAUSE_S):
                break
        request.ended_at = time.monotonic()
        return request

    def _attempt(self, request: Request) -> bool:
        """Return whether there is an answer."""
        request.attempts += 1
        try:
            answer = getattr(self._client, request.operation)(**request.sent)
        except ClientError as error:
            return self._refused(request, error)
        except BotoCoreError as error:
            request.reason, request.unheard_at = repr(error), time.monotonic()
            return False
        request.made = _MADE[request.operation](answer) if request.operation in _MADE else ()
        request.reason = "; ".join(failure["reason"] for failure in answer.get("failures", ()))
        request.outcome = Outcome.ACCEPTED
        return True

    def _refused(self, request: Request, error: ClientError) -> bool:
        request.reason = str(error)
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status >= _SERVER_ERROR:
            if status == _SERVER_ERROR:
                self._ledger.server_errors.append(f"{request.operation}: {error}")
            request.unheard_at = time.monotonic()
            return False
        request.outcome = Outcome.REFUSED
        return True
