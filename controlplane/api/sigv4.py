"""AWS Signature Version 4, the verifying side.

A request is authentic if it is signed, in the Authorization header, with a known key, by a clock at most five minutes
off ours, over its method, path, query, signed headers and the hash of its body. The host and whatever decides what a
request means (its date, its target, a declared body hash) must be among the signed headers. Any region is taken: a
client keeps the one it is used to. Session tokens are ignored. Presigned URLs are not taken.

The rules are those of "Signature Version 4 signing process" in AWS's documentation. Each refusal has AWS's name, which
differs between JSON services and the query protocol; REST services answer with another status.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from multidict import CIMultiDict, CIMultiDictProxy

from controlplane.api.errors import ApiError

__all__ = ["MAX_SKEW_S", "Identity", "SignedRequest", "Verifier", "signing_service"]

#: How far a signer's clock may be off, as at AWS.
MAX_SKEW_S: Final = 300

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DATE_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_EMPTY_HASH: Final = hashlib.sha256(b"").hexdigest()

Headers = CIMultiDict[str] | CIMultiDictProxy[str]


class Identity(NamedTuple):
    """Who signed, and for which region and service."""

    access_key_id: str
    region: str
    service: str


class SignedRequest(NamedTuple):
    """What of an HTTP request is signed. `path` and `query` as they came, still percent-encoded."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    #: Over TLS a body may go unsigned (UNSIGNED-PAYLOAD).
    secure: bool = False


class _Signer(NamedTuple):
    """What an Authorization header says besides the signature: mostly the same for all requests of a client's day."""

    identity: Identity
    date: str
    #: As it is signed.
    scope: str
    #: As in the header, in which they are joined by semicolons.
    signed_headers: str
    names: "_Names"


class Verifier:
    """Checks signatures. `secret_of` gives an access key's secret, or None; `now` the time in epoch seconds."""

    def __init__(self, *, secret_of: Callable[[str], str | None], now: Callable[[], float]) -> None:
        self._secret_of = secret_of
        self._now = now

    def verify(self, request: SignedRequest) -> Identity:
        """Return who signed the request. Raises ApiError, saying what to do, if it isn't authentic."""
        signer, signature = _parse(request.headers)
        identity = signer.identity
        amz_date = self._check_time(request.headers, signer)
        signed_headers = signer.signed_headers.split(";")
        _check_signed_headers(request.headers, signer, signed_headers)
        payload_hash = _payload_hash(request, signer, signed_headers)
        secret = self._secret(signer)
        canonical = _canonical_request(request, signed_headers, signer.signed_headers, payload_hash)
        digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        text = f"{_ALGORITHM}\n{amz_date}\n{signer.scope}\n{digest}"
        mac = _signing_mac(secret, signer.date, identity.region, identity.service).copy()
        mac.update(text.encode())
        expected = mac.hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
            raise signer.names.error(
                "bad_signature",
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
                " Access Key (`homeport login` writes the right one) and that nothing on the way changes the request.",
            )
        return identity

    def check_key(self, headers: Headers) -> None:
        """Raise what `verify` would if the key that signed is unknown, or none is named: for before there is a body."""
        self._secret(_parse(headers)[0])

    def _secret(self, signer: _Signer) -> str:
        access_key_id = signer.identity.access_key_id
        secret = self._secret_of(access_key_id)
        if secret is None:
            raise signer.names.error(
                "unknown_key",
                f"The security token included in the request is invalid: access key '{access_key_id}' is not known"
                " here. `homeport login` writes a profile with a key that is.",
            )
        return secret

    def _check_time(self, headers: Headers, signer: _Signer) -> str:
        """Check the signer's clock and return the time of signing as it was signed."""
        amz_date = headers.get("X-Amz-Date", "")
        try:
            signed_at = _epoch(amz_date)
        except ValueError as error:
            raise signer.names.error(
                "incomplete",
                "Authorization header requires existence of an 'X-Amz-Date' header of the form YYYYMMDDTHHMMSSZ.",
            ) from error
        if amz_date[:8] != signer.date:
            raise signer.names.error(
                "bad_signature",
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
                f" '{signer.date}' != '{amz_date[:8]}'.",
            )
        now = self._now()
        skew = signed_at - now
        if abs(skew) > MAX_SKEW_S:
            here = datetime.fromtimestamp(now, UTC).strftime(_DATE_FORMAT)
            what = "Signature not yet current" if skew > 0 else "Signature expired"
            raise signer.names.error(
                "bad_signature",
                f"{what}: {amz_date} is more than {MAX_SKEW_S // 60} minutes off the server's time {here}."
                " Set the clock of the machine that signed the request.",
            )
        return amz_date


def signing_service(headers: Headers) -> str | None:
    """Return the service named in a request's credential scope, unverified: enough to choose the form of an error."""
    match = _SCOPE.search(headers.get("Authorization", ""))
    return match["service"] if match else None


# ---------------------------------------------------------------- names of errors


@dataclass(frozen=True, slots=True)
class _Names:
    """Names of the refusals in one family of services, with the HTTP status of each."""

    errors: Mapping[str, tuple[str, int]]

    def error(self, kind: str, message: str) -> ApiError:
        code, status = self.errors[kind]
        return ApiError(message, code=code, status=status)


_JSON_NAMES: Final = _Names(
    {
        "missing": ("MissingAuthenticationTokenException", 400),
        "incomplete": ("IncompleteSignatureException", 400),
        "unknown_key": ("UnrecognizedClientException", 400),
        "bad_signature": ("InvalidSignatureException", 400),
    }
)
_QUERY_NAMES: Final = _Names(
    {
        "missing": ("MissingAuthenticationToken", 403),
        "incomplete": ("IncompleteSignature", 400),
        "unknown_key": ("InvalidClientTokenId", 403),
        "bad_signature": ("SignatureDoesNotMatch", 403),
    }
)
#: REST services have the names of the JSON ones, but answer 403.
_REST_NAMES: Final = _Names(
    {kind: (code, 400 if kind == "incomplete" else 403) for kind, (code, _) in _JSON_NAMES.errors.items()}
)
_QUERY_SERVICES: Final = frozenset({"sts"})
_REST_SERVICES: Final = frozenset({"scheduler"})


def _names_of(service: str | None) -> _Names:
    if service in _QUERY_SERVICES:
        return _QUERY_NAMES
    return _REST_NAMES if service in _REST_SERVICES else _JSON_NAMES


# ---------------------------------------------------------------- taking the header apart

_SCOPE: Final = re.compile(
    r"Credential=(?P<key>\w{1,128})/(?P<date>\d{8})/(?P<region>[\w-]{1,64})/(?P<service>[\w-]{1,64})/aws4_request(?=[,\s]|$)",
    re.ASCII,
)
_SIGNED_HEADERS: Final = re.compile(r"SignedHeaders=(?P<names>[^,\s]+)")
_SIGNATURE: Final = re.compile(r"Signature=(?P<hex>[^,\s]+)")


def _parse(headers: Headers) -> tuple[_Signer, str]:
    """Return what the Authorization header says of the signer, and the signature."""
    header = headers.get("Authorization")
    if not header:
        raise _JSON_NAMES.error(
            "missing",
            "Missing Authentication Token: sign the request with an access key of this installation"
            " (`homeport login` writes a profile with one).",
        )
    signature = _SIGNATURE.search(header)
    if signature is None:
        raise _lacking("Signature", _signer(header).names)
    return _signer(header[: signature.start()] + header[signature.end() :]), signature["hex"]


@lru_cache(maxsize=256)
def _signer(header: str) -> _Signer:
    """Take an Authorization header without its signature apart."""
    scope, signed = _SCOPE.search(header), _SIGNED_HEADERS.search(header)
    names = _names_of(scope["service"] if scope else None)
    if not header.startswith(_ALGORITHM):
        raise names.error("incomplete", f"The Authorization header must use {_ALGORITHM}.")
    if scope is None:
        raise _lacking("Credential", names)
    if signed is None:
        raise _lacking("SignedHeaders", names)
    date, region, service = scope["date"], scope["region"], scope["service"]
    identity = Identity(scope["key"], region, service)
    return _Signer(identity, date, f"{date}/{region}/{service}/aws4_request", signed["names"], names)


def _lacking(parameter: str, names: _Names) -> ApiError:
    return names.error(
        "incomplete",
        f"Authorization header requires '{parameter}' parameter, e.g. {_ALGORITHM}"
        " Credential=KEY/DATE/REGION/SERVICE/aws4_request, SignedHeaders=host;x-amz-date, Signature=HEX.",
    )


def _check_signed_headers(headers: Headers, signer: _Signer, signed_headers: Collection[str]) -> None:
    for name in ("host", "x-amz-date", "x-amz-target"):
        if name not in signed_headers and (name != "x-amz-target" or name in headers):
            raise signer.names.error("bad_signature", f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")


def _payload_hash(request: SignedRequest, signer: _Signer, signed_headers: Collection[str]) -> str:
    """Return the body's hash as it was signed, checked against the body."""
    declared = request.headers.get("X-Amz-Content-Sha256")
    if declared == _UNSIGNED:
        if not request.secure or "x-amz-content-sha256" not in signed_headers:
            raise signer.names.error(
                "bad_signature",
                f"{_UNSIGNED} is taken over TLS only, with x-amz-content-sha256 among the signed headers.",
            )
        return _UNSIGNED
    actual = hashlib.sha256(request.body).hexdigest() if request.body else _EMPTY_HASH
    if declared is not None and declared.lower() != actual:
        raise signer.names.error(
            "bad_signature",
            "The 'X-Amz-Content-Sha256' header is not the SHA-256 of the body that arrived: the body was changed on the"
            " way, or is sent in a form that isn't taken here (aws-chunked).",
        )
    return actual


# ---------------------------------------------------------------- the canonical form


def _canonical_request(request: SignedRequest, names: Iterable[str], joined_names: str, payload_hash: str) -> str:
    lines = [request.method, _canonical_path(request.path), _canonical_query(request.query)]
    headers = request.headers
    for name in names:
        values = headers.getall(name, ())
        if len(values) == 1:
            lines.append(f"{name}:{' '.join(values[0].split())}")
        else:
            lines.append(f"{name}:{','.join([' '.join(value.split()) for value in values])}")
    lines += ["", joined_names, payload_hash]
    return "\n".join(lines)


def _canonical_path(path: str) -> str:
    """Encode the path, as sent, once more, dot segments resolved, repeated slashes joined."""
    if path in ("", "/"):
        return "/"
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    tail = "/" if path.endswith("/") and kept else ""
    return quote("/" + "/".join(kept) + tail, safe="/~")


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        pairs.append((_encode(name), _encode(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encode(text: str) -> str:
    return quote(unquote(text), safe="-_.~")


@lru_cache(maxsize=64)
def _epoch(amz_date: str) -> float:
    """Read a time of signing; many requests carry the same second. Raises ValueError."""
    return datetime.strptime(amz_date, _DATE_FORMAT).replace(tzinfo=UTC).timestamp()


@lru_cache(maxsize=256)
def _signing_mac(secret: str, date: str, region: str, service: str) -> hmac.HMAC:
    """Return an HMAC, to be copied, with the key of a day, region and service: four HMACs not done for each request.

    `hmac.digest` would let another thread go first each time.
    """
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, digestmod=hashlib.sha256)
