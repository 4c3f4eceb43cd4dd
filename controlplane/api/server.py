"""The front door: every signed HTTP request for an AWS service comes in by `POST /`, or by any path if it speaks REST.

    request id -> service -> size limit -> signature -> decode -> validate -> handler -> durable -> render

Each step either hands on or raises an ApiError. Nothing is read from the state before the signature is good, and
nothing is answered, success or refusal, before what it was derived from is durable (invariant 1). An error that nobody
foresaw is logged under the request id and answered as ServerException, without internals.
"""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import web

from controlplane.api.body import MAX_BODY_BYTES, largest_body, read_body, unpacked
from controlplane.api.codec import Codec, JsonCodec, QueryCodec, RequestParts, parse_form
from controlplane.api.errors import ApiError, ServerException
from controlplane.api.eventstream import CONTENT_TYPE, INITIAL, EventStream
from controlplane.api.model import Operation, Service
from controlplane.api.readers import Readers
from controlplane.api.registry import CALLER, Answer, Document, Handler
from controlplane.api.rest import RestRoutes
from controlplane.api.services import HOMEPORT, load_handlers, load_services
from controlplane.api.sigv4 import Identity, SignedRequest, Verifier, signing_service
from controlplane.api.validation import check
from controlplane.api.wire import codec_of
from controlplane.context import Context
from homeport.errors import JournalError
from homeport.ids import new_uuid

__all__ = ["FrontDoor", "Observe", "carry_out"]

#: (service, operation, code, seconds) of each answered request; code "200", or the error's name. Names that no model
#: has come as "unknown", so that there are finitely many.
Observe = Callable[[str, str, str, float], None]

_UNKNOWN: Final = "unknown"

log = structlog.get_logger(__name__)


class _Call:
    """One request on its way through the steps; holds as much as is known of it, for the answer's form."""

    __slots__ = (
        "body",
        "codec",
        "labels",
        "operation",
        "operation_name",
        "request",
        "request_id",
        "service",
    )

    def __init__(self, request: web.Request, request_id: str) -> None:
        self.request = request
        self.request_id = request_id
        self.body = b""
        self.codec: Codec = _JSON
        self.service: Service | None = None
        #: As far as a model or the table of handlers knows it.
        self.operation_name = _UNKNOWN
        self.operation: Operation | None = None
        #: Of a REST path.
        self.labels: dict[str, str] = {}

    @property
    def service_name(self) -> str:
        """For logs and metrics."""
        return _UNKNOWN if self.service is None else self.service.name


#: What a handler that is a plain function returns.
_ANSWERS: Final = (dict, EventStream)
#: For requests that name no service we speak; a query client can read nothing but XML.
_JSON: Final = JsonCodec()
_QUERY: Final = QueryCodec("")
_FORM: Final = "application/x-www-form-urlencoded"

#: Of event streams, at once.
_MAX_READERS: Final = 100


class FrontDoor:
    """Serves the AWS services. Hang `routes()` into an aiohttp application, run with `auto_decompress=False`: the
    signature is over the body as it came. Keep `run()` running: when it ends, so do event streams.

    `secret_of` gives the secret of an access key, or None. `observe` is told of each request, for metrics.
    """

    def __init__(
        self, context: Context, *, secret_of: Callable[[str], str | None], observe: Observe | None = None
    ) -> None:
        self._context = context
        self._observe = observe
        self._verifier = Verifier(secret_of=secret_of, now=context.clock.now)
        self._services = load_services()
        self._codecs = {service.name: codec_of(service) for service in self._services.all}
        self._rest_routes = {
            service.name: RestRoutes((service.operations or {}).values())
            for service in self._services.all
            if service.protocol == "rest-json"
        }
        self._handlers = load_handlers(self._services)
        self._readers = Readers(_MAX_READERS)

    async def run(self) -> None:
        """Wait until cancelled, then cut the readers of event streams off."""
        await self._readers.run()

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes: `POST /`, and for REST every path that no other route has."""
        return [web.post("/", self._handle), web.route("*", r"/{path:[\s\S]*}", self._handle_rest)]

    def authenticate(self, request: web.Request, body: bytes) -> Identity:
        """Return who signed an HTTP request, whatever its path. Raises ApiError if it isn't authentic.

        For other signed routes too; they turn the error into an answer with `error_response`.
        """
        path, _, query = request.raw_path.partition("?")
        return self._verifier.verify(
            SignedRequest(
                method=request.method,
                path=path,
                query=query,
                headers=request.headers,
                body=body,
                secure=request.secure,
            )
        )

    def authenticate_own(self, request: web.Request, body: bytes) -> None:
        """As `authenticate`, for what no AWS service has: it is signed for Homeport's own."""
        _check_scope(self.authenticate(request, body), HOMEPORT.signing_name)

    def error_response(self, error: ApiError) -> web.Response:
        """Render an error outside of `POST /` in AWS's JSON form, under a request id of its own."""
        return _refusal(error, new_uuid(self._context.random))[1]

    async def _handle_rest(self, request: web.Request) -> web.StreamResponse:
        """Answer a request whose credential scope names a service that speaks REST; all others are 404."""
        service = self._services.by_signing_name(signing_service(request.headers) or "")
        if service is None or service.protocol != "rest-json":
            raise web.HTTPNotFound
        return await self._handle(request)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. On cancel (the client went away) whatever was changed stays changed."""
        began = self._context.clock.monotonic()
        call = _Call(request, new_uuid(self._context.random))
        response: web.Response | EventStream
        try:
            response = await self._answer(call)
            code = "200"
        except ApiError as error:
            code, response = _refusal(error, call.request_id, call.codec, call.service)
        except JournalError as error:
            # It ends the process, which says so itself; this is about who was waiting.
            log.warning("request refused, as nothing can be kept", request_id=call.request_id, reason=str(error))
            code, response = _refusal(_not_kept(), call.request_id, call.codec, call.service)
        except Exception:
            log.exception(
                "request failed", request_id=call.request_id, service=call.service_name, operation=call.operation_name
            )
            bug = ServerException(f"Internal error. The server's log has the details under {call.request_id}.")
            code, response = _refusal(bug, call.request_id, call.codec, call.service)
        if self._observe is not None:
            seconds = self._context.clock.monotonic() - began
            self._observe(call.service_name, call.operation_name, code, seconds)
        if isinstance(response, EventStream):
            return await self._readers.serve(request, _stream(call, response))
        return response

    async def _answer(self, call: _Call) -> web.Response | EventStream:
        self._choose_service(call)
        max_bytes = largest_body(call.service_name)
        if max_bytes > MAX_BODY_BYTES:
            # Strangers know what service to name, but not a key.
            self._verifier.check_key(call.request.headers)
        call.body = await read_body(call.request, max_bytes=max_bytes)
        identity = self.authenticate(call.request, call.body)
        encoding = call.request.headers.get("Content-Encoding", "identity")
        call.body = unpacked(call.body, encoding, max_bytes=max_bytes)
        CALLER.set(identity.access_key_id)
        handler = self._choose_operation(call, identity)
        answer = await carry_out(self._context, handler, self._decode(call))
        if isinstance(answer, EventStream):
            self._readers.check()
            return answer
        body = call.codec.render(call.operation, answer, call.request_id)
        status, headers = call.codec.head(call.operation, answer)
        return _response(status, body, call.codec.content_type, call.request_id, headers)

    def _choose_service(self, call: _Call) -> None:
        """By target prefix, then by signing name; unverified as yet, but it sets the form of errors."""
        prefix = call.request.headers.get("X-Amz-Target", "").partition(".")[0]
        service = self._services.by_target_prefix(prefix)
        if service is None:
            service = self._services.by_signing_name(signing_service(call.request.headers) or "")
        if service is not None:
            call.service = service
            call.codec = self._codecs[service.name]
        elif call.request.content_type == _FORM:
            call.codec = _QUERY

    def _choose_operation(self, call: _Call, identity: Identity) -> Handler:
        service = call.service
        if service is None:
            known = ", ".join(service.signing_name for service in self._services.all)
            name = _operation_name(call, None)
            asked = f" (asked for {name:.100})" if name else ""
            raise ApiError(
                f"Unknown service '{identity.service:.100}'{asked}: Homeport speaks {known}.",
                code="UnknownOperationException",
            )
        _check_scope(identity, service.signing_name)
        name = self._rest_name(call) if service.protocol == "rest-json" else _operation_name(call, service)
        handler = self._handlers.get((service.name, name))
        if service.operations is not None:
            call.operation = service.operations.get(name)
        if handler is None and call.operation is None:
            asked = f"operation '{name:.100}'" if name else f"{call.request.method} {call.request.path:.100}"
            raise ApiError(f"Unknown operation: {service.title} has no {asked}.", **_unknown(service))
        call.operation_name = name
        if handler is None:
            raise ApiError(
                f"{service.title}: the operation {name} isn't implemented by Homeport.",
                code="UnsupportedFeatureException",
            )
        return handler

    def _rest_name(self, call: _Call) -> str:
        """Return the operation that method and path mean, "" if none, and keep the path's labels."""
        assert call.service is not None
        path, _, query = call.request.raw_path.partition("?")
        name, call.labels = self._rest_routes[call.service.name].find(call.request.method, path, query) or ("", {})
        return name

    @staticmethod
    def _decode(call: _Call) -> Document:
        assert call.service is not None
        shape = call.operation.input if call.operation else None
        parts = None
        if call.service.protocol == "rest-json":
            query = call.request.raw_path.partition("?")[2]
            parts = RequestParts(call.labels, parse_qsl(query, keep_blank_values=True), call.request.headers)
        parsed = call.codec.parse(call.body, shape, parts)
        if call.service.operations is None:
            if not isinstance(parsed, dict):
                raise ApiError("The request body must be a JSON object.", code="SerializationException")
            return parsed
        return check(shape, parsed, validation_error=call.service.validation_error)


async def carry_out(context: Context, handler: Handler, document: Document) -> Answer:
    """Run the handler of a checked request; give its answer, or raise its ApiError, once what it read is durable."""
    try:
        result = handler(context, document)
        answer = result if isinstance(result, _ANSWERS) else await result
    except ApiError:
        # A refusal too tells of what was read.
        await context.state.durable()
        raise
    await context.state.durable()
    return answer


def _check_scope(identity: Identity, signing_name: str) -> None:
    if identity.service != signing_name:
        raise ApiError(
            f"Credential should be scoped to correct service: '{signing_name}'.", code="InvalidSignatureException"
        )


def _operation_name(call: _Call, service: Service | None) -> str:
    """Return what the request asks for. Of a service that we don't know, the form tells the protocol."""
    is_query = call.codec is _QUERY if service is None else service.protocol == "query"
    if is_query:
        return parse_form(call.body).get("Action", "")
    return call.request.headers.get("X-Amz-Target", "").partition(".")[2]


def _unknown(service: Service) -> dict[str, Any]:
    if service.protocol == "query":
        return {"code": "InvalidAction", "status": 400}
    if service.protocol == "rest-json":
        return {"code": "UnknownOperationException", "status": 404}
    return {"code": "UnknownOperationException", "status": 400}


def _not_kept() -> ApiError:
    """For whoever can't be told what may not be kept. Clients repeat what is answered with 503."""
    return ApiError(
        "The control plane can't keep its state and starts anew. Whether it keeps this isn't known; ask again.",
        code="ServiceUnavailableException",
        status=503,
    )


def _refusal(
    error: ApiError, request_id: str, codec: Codec = _JSON, service: Service | None = None
) -> tuple[str, web.Response]:
    """Return an error's name on the wire and the answer that carries it."""
    code, status = error.code, error.status
    if service is not None:
        code, status = service.errors.get(code, (code, status))
    body = codec.render_error(error, code=code, status=status, request_id=request_id)
    response = _response(status, body, codec.content_type, request_id, codec.error_headers(code))
    if error.query_code is not None:
        response.headers["x-amzn-query-error"] = f"{error.query_code};Sender"
    return code, response


async def _stream(call: _Call, stream: EventStream) -> web.StreamResponse:
    """Write a stream's events as they come, until it ends or its reader has gone."""
    response = web.StreamResponse(headers=_headers(CONTENT_TYPE, call.request_id))
    await response.prepare(call.request)
    async with aclosing(stream.events) as events:
        try:
            await response.write(INITIAL.encode())
            async for event in events:
                await response.write(event.encode())
            await response.write_eof()
        except ConnectionResetError:
            pass
        except Exception:
            log.exception("stream failed", request_id=call.request_id, operation=call.operation_name)
    return response


def _response(
    status: int, body: bytes, content_type: str, request_id: str, members: dict[str, str] | None = None
) -> web.Response:
    headers = {**(members or {}), **_headers(content_type, request_id)}
    return web.Response(body=body, status=status, headers=headers)


def _headers(content_type: str, request_id: str) -> dict[str, str]:
    return {"Content-Type": content_type, "x-amzn-RequestId": request_id, "Server": "Homeport"}
