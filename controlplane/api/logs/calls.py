"""How every operation of CloudWatch Logs is registered: what the log store refuses becomes CloudWatch's own error."""

import functools
from collections.abc import Awaitable, Callable

from controlplane.api.errors import ApiError
from controlplane.api.registry import Answer, Document, operation
from controlplane.context import Context
from controlplane.logs.api import (
    GroupExists,
    GroupMissing,
    LogStoreError,
    StoreUnavailable,
    StreamExists,
    StreamMissing,
)

__all__ = ["invalid", "logs_operation", "translated"]

_Call = Callable[[Context, Document], Awaitable[Answer]]


def invalid(message: str) -> ApiError:
    """Return the error for a parameter that can't be used."""
    return ApiError(message, code="InvalidParameterException")


def logs_operation(name: str) -> Callable[[_Call], _Call]:
    """Register a coroutine as the handler of an operation, with the store's errors translated."""

    def register(handler: _Call) -> _Call:
        @functools.wraps(handler)
        async def translating(context: Context, request: Document) -> Answer:
            try:
                return await handler(context, request)
            except LogStoreError as error:
                raise translated(error) from error

        operation("logs", name)(translating)
        return translating

    return register


def translated(error: LogStoreError) -> ApiError:
    """Return CloudWatch's error for what the store refused."""
    match error:
        case GroupMissing():
            return ApiError("The specified log group does not exist.", code="ResourceNotFoundException")
        case StreamMissing():
            return ApiError("The specified log stream does not exist.", code="ResourceNotFoundException")
        case GroupExists():
            return ApiError("The specified log group already exists", code="ResourceAlreadyExistsException")
        case StreamExists():
            return ApiError("The specified log stream already exists", code="ResourceAlreadyExistsException")
        case StoreUnavailable():
            return ApiError(f"Logs can't be kept or read just now: {error}.", code="ServiceUnavailableException")
        case _:
            return ApiError(str(error), code="OperationAbortedException")
