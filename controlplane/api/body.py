"""Reading a request's body under limits that hold before anyone is known to have signed it."""

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from controlplane.api.errors import ApiError

__all__ = ["MAX_BODY_BYTES", "TIMEOUT_S", "read_body"]

#: The largest request body taken, as at AWS.
MAX_BODY_BYTES: Final = 1024 * 1024

#: Seconds in which a body must have come: nobody holds a connection open unsigned.
TIMEOUT_S: Final = 30.0


async def read_body(request: web.Request, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Read the body as it was signed. Raises ApiError if it is too large (413, read no further), late or unreadable."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _unreadable(f"Content-Encoding '{encoding:.100}' isn't taken")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        if request.content.is_eof():  # it came along with the headers, as nearly all do
            body = request.content.read_nowait()
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
            return body
        async with asyncio.timeout(timeout_s):
            return await _arriving(request)
    except TimeoutError as error:
        raise ApiError(
            f"The request body didn't arrive within {timeout_s:g} seconds.",
            code="RequestTimeoutException",
            status=408,
        ) from error
    except (BadHttpMessage, OSError, web.RequestPayloadError) as error:
        raise _unreadable("it is broken, or the connection was lost") from error


async def _arriving(request: web.Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> ApiError:
    return ApiError(
        f"The request body is larger than {MAX_BODY_BYTES} bytes.", code="RequestEntityTooLargeException", status=413
    )


def _unreadable(why: str) -> ApiError:
    return ApiError(f"The request body can't be read: {why}.", code="SerializationException")
