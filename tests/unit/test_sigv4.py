"""Signature verification against AWS's published example and against botocore's signer, path and query included."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from controlplane.api.errors import ApiError
from controlplane.api.sigv4 import Identity, SignedRequest, Verifier, signing_service

SECRETS = {"AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "me": "secret"}
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()


def verifier(now: float = NOW) -> Verifier:
    return Verifier(secret_of=SECRETS.get, now=lambda: now)


def example(**changes: str) -> SignedRequest:
    """`get-vanilla` of AWS's test suite for Signature Version 4."""
    headers = {
        "Host": "example.amazonaws.com",
        "X-Amz-Date": "20150830T123600Z",
        "Authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            "SignedHeaders=host;x-amz-date, "
            "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        ),
        **changes,
    }
    return SignedRequest(method="GET", path="/", query="", headers=CIMultiDict(headers), body=b"")


def signed(
    url: str, headers: dict[str, str] | None = None, *, method: str = "POST", body: bytes = b""
) -> SignedRequest:
    """A request as botocore signs it, now."""
    request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
    SigV4Auth(Credentials("me", "secret"), "homeport", "eu-home-1").add_auth(request)
    sent = {name: str(value) for name, value in request.headers.items()}
    parts = urlsplit(url)
    return SignedRequest(
        method=method,
        path=parts.path,
        query=parts.query,
        headers=CIMultiDict({"Host": parts.netloc, **sent}),
        body=body,
    )


def verify_now(request: SignedRequest) -> Identity:
    return Verifier(secret_of=SECRETS.get, now=lambda: datetime.now(UTC).timestamp()).verify(request)


def refusal(request: SignedRequest, now: float = NOW) -> ApiError:
    with pytest.raises(ApiError) as caught:
        verifier(now).verify(request)
    return caught.value


def test_awss_own_example_is_authentic() -> None:
    assert verifier().verify(example()) == Identity("AKIDEXAMPLE", "us-east-1", "service")


def test_the_parts_of_the_header_may_come_in_any_order() -> None:
    scheme, _, parts = example().headers["Authorization"].partition(" ")
    credential, signed_headers, signature = parts.split(", ")
    for order in ((signature, credential, signed_headers), (signed_headers, signature, credential)):
        found = verifier().verify(example(Authorization=f"{scheme} {', '.join(order)}"))
        assert found == Identity("AKIDEXAMPLE", "us-east-1", "service")


def test_another_signature_of_a_known_signer_is_not_taken_for_its_own() -> None:
    authorization = example().headers["Authorization"]
    verifier().verify(example())
    assert refusal(example(Authorization=f"{authorization[:-1]}2")).code == "InvalidSignatureException"


def test_values_of_a_header_that_comes_twice_are_signed_together() -> None:
    request = signed("https://h.example/", {"X-Twice": "a,b"})
    headers = CIMultiDict([(name, value) for name, value in request.headers.items() if name != "X-Twice"])
    headers.extend([("X-Twice", "a"), ("X-Twice", " b ")])
    assert verify_now(request._replace(headers=headers)).access_key_id == "me"


@pytest.mark.parametrize("off", [299, -299, 300, -300])
def test_a_clock_within_five_minutes_is_taken(off: int) -> None:
    assert verifier(NOW + off).verify(example()).access_key_id == "AKIDEXAMPLE"


@pytest.mark.parametrize(("off", "words"), [(301, "Signature expired"), (-301, "Signature not yet current")])
def test_a_clock_further_off_is_refused(off: int, words: str) -> None:
    error = refusal(example(), NOW + off)
    assert (error.code, error.status) == ("InvalidSignatureException", 400)
    assert error.message.startswith(words)


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1/",
        "http://h:1/homeport/v1/logs/abc",
        "http://h:1/a%20b/%C3%A4/c+d/e~f",
        "http://h:1/a//b/./c/../d/",
        "http://h:1/logs?follow=true&tail=10&since=1.5",
        "http://h:1/logs?b=2&a=1&a=0&empty=&name",
        "http://h:1/logs?name=a%20b%2Fc%C3%A4",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_and_queries_are_those_botocore_signs(url: str, method: str) -> None:
    assert verify_now(signed(url, method=method, body=b"x")) == Identity("me", "eu-home-1", "homeport")


def test_spaces_inside_headers_are_folded() -> None:
    request = signed("http://h:1/", {"X-Amz-Target": "  a   b  "})
    assert request.headers["X-Amz-Target"] == "  a   b  "
    assert verify_now(request).access_key_id == "me"


@pytest.mark.parametrize("part", ["path", "query", "method", "body"])
def test_whatever_is_changed_on_the_way_is_noticed(part: str) -> None:
    request = signed("http://h:1/logs?a=1", body=b"body")
    changes: dict[str, Any] = {"path": "/other", "query": "a=2", "method": "PUT", "body": b"else"}
    was = {name: getattr(request, name) for name in ("method", "path", "query", "headers", "body")}
    with pytest.raises(ApiError) as caught:
        verify_now(SignedRequest(**{**was, part: changes[part]}))
    assert caught.value.code == "InvalidSignatureException"


@pytest.mark.parametrize(("secure", "taken"), [(True, True), (False, False)])
def test_an_unsigned_body_is_taken_over_tls_only(secure: bool, taken: bool) -> None:
    request = signed("http://h:1/", {"X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD"}, body=b"body")
    again = SignedRequest(
        method="POST", path="/", query="", headers=request.headers, body=b"another body", secure=secure
    )
    if taken:
        assert verify_now(again).access_key_id == "me"
        return
    with pytest.raises(ApiError, match="over TLS only"):
        verify_now(again)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Authorization": ""}, "MissingAuthenticationTokenException"),
        ({"Authorization": "AWS4-HMAC-SHA256 nonsense"}, "IncompleteSignatureException"),
        ({"X-Amz-Date": ""}, "IncompleteSignatureException"),
        ({"X-Amz-Date": "20150831T000000Z"}, "InvalidSignatureException"),
        ({"X-Amz-Content-Sha256": "ab"}, "InvalidSignatureException"),
    ],
)
def test_each_refusal_has_its_name(changes: dict[str, str], code: str) -> None:
    assert refusal(example(**changes)).code == code


def test_a_scope_of_another_day_is_refused_as_such() -> None:
    header = example().headers["Authorization"].replace("/20150830/", "/20150829/")
    error = refusal(example(Authorization=header))
    assert error.code == "InvalidSignatureException"
    assert "'20150829' != '20150830'" in error.message


def test_an_unknown_key_is_refused_by_name() -> None:
    request = example(Authorization=example().headers["Authorization"].replace("AKIDEXAMPLE", "AKIDOTHER"))
    error = refusal(request)
    assert error.code == "UnrecognizedClientException"
    assert "'AKIDOTHER'" in error.message


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("AKIDOTHER", "InvalidClientTokenId", 403),
        ("AKIDEXAMPLE", "SignatureDoesNotMatch", 403),
    ],
)
def test_query_services_have_names_of_their_own(kind: str, code: str, status: int) -> None:
    header = example().headers["Authorization"].replace("/service/", "/sts/").replace("AKIDEXAMPLE", kind)
    error = refusal(example(Authorization=header))
    assert (error.code, error.status) == (code, status)


def test_the_service_can_be_read_without_verifying() -> None:
    assert signing_service(example().headers) == "service"
    assert signing_service(CIMultiDict({"Authorization": "Basic x"})) is None
    assert signing_service(CIMultiDict()) is None


@given(st.text(st.characters(codec="latin-1"), max_size=80), st.text(st.characters(codec="latin-1"), max_size=20))
def test_no_header_makes_anything_but_a_refusal(authorization: str, date: str) -> None:
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {authorization}", "X-Amz-Date": date}
    assert refusal(example(**headers)).status in (400, 403)


@given(st.binary(max_size=40))
def test_no_bytes_in_a_signature_make_anything_but_a_refusal(raw: bytes) -> None:
    odd = raw.decode("utf-8", "surrogateescape")
    header = example().headers["Authorization"].replace("5fa00fa3", odd)
    request = example(Authorization=header, Host=odd)
    assert refusal(request).status in (400, 403)
