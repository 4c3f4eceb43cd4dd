"""A client of one control plane: ECS's operations through botocore, our own as requests signed the same way.

botocore alone makes signatures and parses answers. Its errors become sentences here, with exit codes (`errors`).
"""

import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote, urlencode

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    ParamValidationError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import URLLib3Session
from botocore.session import Session
from urllib3.exceptions import HTTPError

from homeport.cli.connection import Connection
from homeport.cli.errors import CannotConnect, CliError, NotFound

__all__ = ["SERVICE", "TARGET_PREFIX", "Client"]

#: Signing name and target prefix of the operations that ECS doesn't have.
SERVICE: Final = "homeport"
TARGET_PREFIX: Final = "Homeport_20261101"

_CONNECT_TIMEOUT_S: Final = 5
_READ_TIMEOUT_S: Final = 30
#: A stream that is followed has an empty line every 15 seconds.
_SILENCE_S: Final = 60
#: For what the control plane has to make first.
_LONG_TIMEOUT_S: Final = 300
_PIECE_BYTES: Final = 1 << 16
_NOT_FOUND_CODES: Final = frozenset(
    {
        "ClusterNotFoundException",
        "TaskNotFoundException",
        "ContainerInstanceNotFoundException",
        "ResourceNotFoundException",
        "ServiceNotFoundException",
    }
)
_KEY_CODES: Final = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "IncompleteSignatureException",
    }
)


class Client:
    """Speaks to one control plane. Opens nothing before the first request; safe to use from one thread at a time."""

    def __init__(self, connection: Connection, *, attempts: int = 3) -> None:
        self.connection = connection
        self._attempts = attempts
        self._services: dict[str, Any] = {}

    def ecs(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of ECS by botocore's name, e.g. `ecs("list_clusters")`. Raises CliError."""
        return self._aws("ecs", operation, parameters)

    def pages(self, operation: str, member: str, **parameters: Any) -> list[Any]:
        """Return the whole list `member` of a paginated ECS operation. Raises CliError."""
        with self._translated():
            pages = self._service("ecs").get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page[member]]

    def ssm(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of SSM. Raises CliError."""
        return self._aws("ssm", operation, parameters)

    def logs(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call an operation of CloudWatch Logs. Raises CliError."""
        return self._aws("logs", operation, parameters)

    def account(self) -> str:
        """Return the account id, as STS tells it. Raises CliError."""
        return str(self._aws("sts", "get_caller_identity", {})["Account"])

    def own(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Call one of Homeport's own operations (`controlplane.api.homeport_service`). Raises CliError."""
        body = json.dumps({name: value for name, value in parameters.items() if value is not None}).encode()
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{TARGET_PREFIX}.{operation}"}
        response = self._send("POST", "/", body=body, headers=headers)
        document: dict[str, Any] = self._json(response)
        return document

    def lines(
        self, path: str, query: dict[str, str], *, follow: bool = False, document: dict[str, Any] | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """GET a stream of JSON lines and yield each as it comes; with `document` POST it.

        `follow` waits for the next line as long as it takes, but notices when the control plane is no longer there.
        """
        for line in self._raw_lines(path, query, follow=follow, document=document):
            if line:
                yield json.loads(line)

    def server_sent(
        self, path: str, query: Mapping[str, str | Sequence[str]], *, follow: bool = False
    ) -> Generator[tuple[int, str, Any], None, None]:
        """GET a stream of server-sent events and yield (id, event, data) of each; a mere mark is (id, "", None).

        `follow` as for `lines`.
        """
        fields: dict[str, str] = {}
        for line in self._raw_lines(path, query, follow=follow):
            name, _, value = line.decode().partition(": ")
            if name:
                fields[name] = value
            elif not line and "id" in fields:
                yield int(fields["id"]), fields.get("event", ""), json.loads(fields.get("data", "null"))
                fields.clear()

    def get(self, path: str) -> int:
        """GET a path without a signature, e.g. /readyz, and return the HTTP status. Raises CannotConnect."""
        with self._translated():
            request = AWSRequest("GET", self.connection.endpoint_url + path)
            return int(self._http(_CONNECT_TIMEOUT_S).send(request.prepare()).status_code)

    def fetch(self, path: str) -> bytes:
        """GET a path that needs no signature and return the body. Raises CliError with the answer's text."""
        with self._translated():
            request = AWSRequest("GET", self.connection.endpoint_url + path)
            response = self._http(_LONG_TIMEOUT_S).send(request.prepare())
        if response.status_code != 200:
            raise CliError(response.text.strip() or f"HTTP status {response.status_code}")
        return bytes(response.content)

    def download(self, path: str) -> Iterator[bytes]:
        """GET a path, signed, and yield the body of the answer in pieces. Raises CliError."""
        response = self._send("GET", path, stream=True, timeout_s=None)
        if response.status_code != 200:
            self._json(response)
        with self._translated():
            yield from response.raw.stream(_PIECE_BYTES)

    # ---------------------------------------------------------------- private

    def _raw_lines(
        self,
        path: str,
        query: Mapping[str, str | Sequence[str]],
        *,
        follow: bool,
        document: dict[str, Any] | None = None,
    ) -> Generator[bytes, None, None]:
        response = self._send(
            "GET" if document is None else "POST",
            f"{path}?{urlencode(query, doseq=True, quote_via=quote)}",  # as it is signed
            body=b"" if document is None else json.dumps(document).encode(),
            stream=True,
            timeout_s=_SILENCE_S if follow else _READ_TIMEOUT_S,
        )
        if response.status_code != 200:
            self._json(response)
        rest = b""
        with self._translated():
            for chunk in response.raw.stream(_PIECE_BYTES):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole

    def _aws(self, service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in parameters.items() if value is not None}
        with self._translated():
            answer: dict[str, Any] = getattr(self._service(service), operation)(**given)
        answer.pop("ResponseMetadata", None)
        return answer

    def _service(self, name: str) -> Any:
        if name not in self._services:
            # Without the user's own AWS files: nothing in them may redirect what we send.
            empty = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
            session = Session(session_vars={"profile": (None, None, None, None), **empty})
            self._services[name] = session.create_client(
                name,
                region_name=self.connection.region,
                endpoint_url=self.connection.endpoint_url,
                aws_access_key_id=self.connection.access_key_id,
                aws_secret_access_key=self.connection.secret_access_key,
                verify=self.connection.ca_bundle,
                config=Config(
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    read_timeout=_READ_TIMEOUT_S,
                    retries={"total_max_attempts": self._attempts, "mode": "standard"},
                    ignore_configured_endpoint_urls=True,
                    inject_host_prefix=False,
                    # The control plane is in the neighbourhood: no proxy, here as in `_http`.
                    proxies={},
                ),
            )
        return self._services[name]

    def _http(self, read_timeout_s: float | None) -> URLLib3Session:
        return URLLib3Session(
            verify=self.connection.ca_bundle or True,
            timeout=(_CONNECT_TIMEOUT_S, read_timeout_s),
            max_pool_connections=1,
        )

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        stream: bool = False,
        timeout_s: float | None = _READ_TIMEOUT_S,
    ) -> AWSResponse:
        request = AWSRequest(
            method, self.connection.endpoint_url + path, headers=headers, data=body, stream_output=stream
        )
        credentials = Credentials(self.connection.access_key_id, self.connection.secret_access_key)
        SigV4Auth(credentials, SERVICE, self.connection.region).add_auth(request)
        with self._translated():
            return self._http(timeout_s).send(request.prepare())

    def _json(self, response: AWSResponse) -> Any:
        try:
            document = json.loads(response.content or b"{}")
        except ValueError:
            document = {}
        if response.status_code == 200:
            return document
        code = str(document.get("__type", "")).rpartition("#")[2]
        raise self._error(code, str(document.get("message") or f"HTTP status {response.status_code}"))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        where = f"{self.connection.endpoint_url} (from {self.connection.source})"
        try:
            yield
        except ClientError as error:
            found = error.response.get("Error", {})
            raise self._error(found.get("Code", ""), found.get("Message", str(error))) from error
        except ParamValidationError as error:
            raise CliError(str(error)) from error
        except SSLError as error:
            raise CannotConnect(
                f"The certificate of {where} isn't trusted: {error}",
                hint="Sign in again: `homeport login` (with --ca-hash for a remote control plane).",
            ) from error
        except ReadTimeoutError as error:
            raise CannotConnect(f"The control plane at {where} took too long to answer.") from error
        except (HTTPClientError, ConnectionError, HTTPError) as error:
            raise CannotConnect(
                f"The control plane at {where} can't be reached.",
                hint="Is it running? Start it with `homeport up`, or name another one with --data-dir or --profile.",
            ) from error
        except BotoCoreError as error:
            raise CliError(str(error)) from error

    def _error(self, code: str, message: str) -> CliError:
        if code in _KEY_CODES:
            return CannotConnect(
                f"The control plane at {self.connection.endpoint_url} refuses the access key "
                f"from {self.connection.source}: {message}",
                hint="Take its present key with `homeport login --data-dir DIR`.",
                code=code,
            )
        if code in _NOT_FOUND_CODES or "not found" in message:
            return NotFound(message, code=code)
        return CliError(f"{message} ({code})" if code else message, code=code)
