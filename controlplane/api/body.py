"""Reading a request's body under limits that hold before anyone is known to have signed it."""

import asyncio
import zlib
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from controlplane.api.errors import ApiError

__all__ = ["MAX_BODY_BYTES", "TIMEOUT_S", "largest_body", "read_body", "unpacked"]

#: The largest request body taken, as at AWS.
MAX_BODY_BYTES: Final = 1024 * 1024

#: Services that take larger ones. A PutLogEvents has up to 1 MiB of texts, of which JSON may write each byte as six.
_LARGER: Final = {"logs": 8 * 1024 * 1024}

#: Has zlib read gzip's header.
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS

#: Seconds in which a body must have come: nobody holds a connection open unsigned.
TIMEOUT_S: Final = 30.0


def largest_body(service: str) -> int:
    """Return how many bytes the body of a service's request may have, packed or not."""
    return _LARGER.get(service, MAX_BODY_BYTES)


async def read_body(request: web.Request, *, max_bytes: int = MAX_BODY_BYTES, timeout_s: float = TIMEOUT_S) -> bytes:
    """Read the body as it was signed; `unpacked` makes it readable.

    Raises ApiError if it is too large (413, read no further), late or unreadable.
    """
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    try:
        if request.content.is_eof():  # it came along with the headers, as nearly all do
            body = request.content.read_nowait()
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            return body
        async with asyncio.timeout(timeout_s):
            return await _arriving(request, max_bytes)
    except TimeoutError as error:
        raise ApiError(
            f"The request body didn't arrive within {timeout_s:g} seconds.",
            code="RequestTimeoutException",
            status=408,
        ) from error
    except (BadHttpMessage, OSError, web.RequestPayloadError) as error:
        raise _unreadable("it is broken, or the connection was lost") from error


def unpacked(body: bytes, encoding: str, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Undo a Content-Encoding, "identity" or "gzip". Raises ApiError if it is another, broken, or too large (413)."""
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise _unreadable(f"Content-Encoding '{encoding:.100}' isn't taken, gzip is")
    unpacking = zlib.decompressobj(_GZIP_WBITS)
    try:
        plain = unpacking.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise _unreadable(f"it isn't gzip ({error})") from error
    if len(plain) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacking.eof:
        raise _unreadable("its gzip ends too early")
    return plain


async def _arriving(request: web.Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        f"The request body is larger than {max_bytes} bytes.", code="RequestEntityTooLargeException", status=413
    )


def _unreadable(why: str) -> ApiError:
    return ApiError(f"The request body can't be read: {why}.", code="SerializationException")
