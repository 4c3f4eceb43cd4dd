"""The requests that bring events: what is in them, where they may go, and what answers mean."""

import base64
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from controlplane.events.endpoint import BadEndpoint, address_problem, check_endpoint
from controlplane.events.outgoing import Outgoing, check_secrets, new_secret, outgoing, signature
from controlplane.events.retrying import Backoff, Verdict, retry_after, verdict_of_status
from controlplane.events.sending import Sender
from controlplane.events.transform import BadInput
from controlplane.state.delivery_records import ApiDestinationRecord, ConnectionRecord, HttpParameter
from tests.fakes.clock import ManualClock
from tests.fakes.endpoint import Endpoint, serve_endpoint

EVENT = {"id": "the-id", "detail": {"group": "a/b", "n": 1, "list": [1, 2]}}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"k" * 64).decode()


def a_request(
    *,
    endpoint: str = "https://a.test/in",
    method: str = "POST",
    parameters: tuple[HttpParameter, ...] = (),
    text: str = '{"a": 1}',
    authorization: str = "API_KEY",
    user: str = "x-key",
    secret: str = "hush",
    **http_parameters: Any,
) -> Outgoing:
    connection = ConnectionRecord(
        name="c",
        id="1",
        created_at=1.0,
        modified_at=1.0,
        authorized_at=1.0,
        authorization=authorization,
        user=user,
        secret=secret,
        parameters=parameters,
    )
    destination = ApiDestinationRecord(
        name="d",
        id="1",
        created_at=1.0,
        modified_at=1.0,
        connection="c",
        connection_id="1",
        endpoint=endpoint,
        method=method,
    )
    return outgoing({"HttpParameters": http_parameters}, destination, connection, EVENT, text, now=1_700_000_000.9)


def test_an_api_key_is_a_header_and_basic_a_password() -> None:
    request = a_request()
    assert request.headers["x-key"] == "hush"
    assert (request.method, request.body) == ("POST", b'{"a": 1}')
    assert (request.headers["webhook-id"], request.headers["webhook-timestamp"]) == ("the-id", "1700000000")
    assert "webhook-signature" not in request.headers
    basic = a_request(authorization="BASIC", user="me", secret="pass").headers["Authorization"]
    assert basic == "Basic " + base64.b64encode(b"me:pass").decode()


def test_the_signature_is_that_of_the_standard() -> None:
    # The example that the specification's libraries are tested with.
    body = b'{"test": 2432232314}'
    signed = signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    headers = a_request(user="webhook-signature", secret=f"{SECRET} {OTHER}").headers
    expected = [signature(each, "the-id", 1_700_000_000, b'{"a": 1}') for each in (SECRET, OTHER)]
    assert headers["webhook-signature"].split() == expected
    assert SECRET not in str(headers)


def test_secrets_are_checked() -> None:
    check_secrets(new_secret(random.Random(1)))
    check_secrets(f"{SECRET} {OTHER}")
    for bad in ("", " ", "hush", "whsec_", "whsec_ab", "whsec_" + base64.b64encode(b"k" * 65).decode()):
        with pytest.raises(BadInput):
            check_secrets(bad)


def test_parameters_are_filled_in_and_the_connections_come_first() -> None:
    request = a_request(
        endpoint="https://a.test/*/x/*?v=1",
        parameters=(
            HttpParameter(place="header", key="X-A", value="connection"),
            HttpParameter(place="query", key="q", value="connection"),
            HttpParameter(place="body", key="a", value="connection"),
        ),
        PathParameterValues=["$.detail.group", "plain"],
        HeaderParameters={"x-a": "target", "x-b": "$.detail.list", "content-type": "text/plain"},
        QueryStringParameters={"q": "target", "r": "$.detail.nothing", "s": "$.detail.n"},
    )
    assert str(request.url) == "https://a.test/a%2Fb/x/plain?v=1&q=connection&r=&s=1"
    assert msgspec.json.decode(request.body or b"") == {"a": "connection"}
    lower = {name.lower(): value for name, value in request.headers.items()}
    assert len(lower) == len(request.headers)
    assert (lower["x-a"], lower["x-b"], lower["content-type"]) == ("connection", "[1,2]", "text/plain")


def test_what_a_header_can_not_hold_is_left_out() -> None:
    event = {"id": "1", "detail": {"text": "a\r\nx-evil: 1"}}
    connection = ConnectionRecord(
        name="c",
        id="1",
        created_at=1.0,
        modified_at=1.0,
        authorized_at=1.0,
        authorization="API_KEY",
        user="k",
        secret="s",
    )
    destination = ApiDestinationRecord(
        name="d",
        id="1",
        created_at=1.0,
        modified_at=1.0,
        connection="c",
        connection_id="1",
        endpoint="https://a.test/",
        method="POST",
    )
    target = {"HttpParameters": {"HeaderParameters": {"x-a": "$.detail.text"}}}
    headers = outgoing(target, destination, connection, event, "{}", now=1.0).headers
    assert headers["x-a"] == "a  x-evil: 1"


def test_requests_that_can_not_be_made() -> None:
    body = (HttpParameter(place="body", key="a", value="1"),)
    with pytest.raises(BadInput, match="no JSON object"):
        a_request(parameters=body, text='"text"')
    with pytest.raises(BadInput, match=r"has 1 \*, and HttpParameters only 0"):
        a_request(endpoint="https://a.test/*")
    assert a_request(method="GET", parameters=body, text="").body is None


# ---------------------------------------------------------------- where


@pytest.mark.parametrize(
    ("address", "secure", "refused"),
    [
        ("169.254.169.254", True, True),
        ("169.254.0.1", False, True),
        ("fe80::1", True, True),
        ("fe80::1%eth0", True, True),
        ("::ffff:169.254.169.254", True, True),
        ("2002:a9fe:a9fe::", True, True),
        ("fd00:ec2::254", True, True),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("224.0.0.1", True, True),
        ("255.255.255.255", True, True),
        ("8.8.8.8", False, True),
        ("2001:4860:4860::8888", False, True),
        ("8.8.8.8", True, False),
        ("10.0.0.1", False, False),
        ("192.168.1.1", False, False),
        ("100.64.0.1", False, False),
        ("127.0.0.1", False, False),
        ("::1", False, False),
        ("fd12::1", False, False),
        ("a-name.test", False, False),
    ],
)
def test_addresses(address: str, secure: bool, refused: bool) -> None:
    assert bool(address_problem(address, secure=secure)) is refused


@given(st.text() | st.from_regex(r"https?://[^/]*(:[0-9]*)?/.*", fullmatch=True))
def test_whatever_it_is_it_is_a_url_or_refused(text: str) -> None:
    try:
        check_endpoint(text)
    except BadEndpoint:
        return
    assert text.lower().startswith("http")


# ---------------------------------------------------------------- sending


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with serve_endpoint() as served:
        yield served


def to(url: str) -> Outgoing:
    return Outgoing("POST", URL(url), {"Content-Type": "application/json"}, b"{}")


async def test_names_that_lead_where_nothing_may_be_sent_are_refused(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"metadata.test": "169.254.169.254", "public.test": "8.8.8.8", "private.test": "127.0.0.1"}

    async def resolve(_: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": found[host], "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    port = URL(endpoint.url).port
    async with Sender(ManualClock()) as sender:
        metadata = await sender.send(to("https://metadata.test/"))
        assert metadata.verdict is Verdict.RETRY
        assert "metadata.test: the address 169.254.169.254 is link-local" in metadata.problem
        public = await sender.send(to("http://public.test/"))
        assert "the address 8.8.8.8 is public: only https is sent there" in public.problem
        assert (await sender.send(to(f"http://private.test:{port}/"))).verdict is Verdict.DELIVERED
        assert "link-local" in (await sender.send(to("http://169.254.169.254/"))).problem


async def test_answers(endpoint: Endpoint) -> None:
    async with Sender(ManualClock()) as sender:
        endpoint.then(204, 302, 404, 422, 410, Location="http://169.254.169.254/")
        verdicts = [(await sender.send(to(endpoint.url))).verdict for _ in range(5)]
    assert verdicts == [Verdict.DELIVERED, Verdict.RETRY, Verdict.RETRY, Verdict.REFUSED, Verdict.GONE]
    assert len(endpoint.requests) == 5


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=int(request.query["status"]))
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
        return response

    application = web.Application()
    application.router.add_post("/", endless)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/?status="
    async with Sender(ManualClock()) as sender:
        assert (await sender.send(to(f"{url}200"))).verdict is Verdict.DELIVERED
        refused = await sender.send(to(f"{url}500"))
        assert refused.verdict is Verdict.RETRY
        assert len(refused.problem) < 300
    await runner.cleanup()


async def test_what_can_not_be_reached_is_said(endpoint: Endpoint) -> None:
    async with Sender(ManualClock(), timeout_s=0.05) as sender:
        assert "Connect call failed" in (await sender.send(to("http://127.0.0.1:1/"))).problem
        # It speaks no TLS.
        assert (await sender.send(to(endpoint.url.replace("http:", "https:")))).verdict is Verdict.RETRY
        endpoint.open.clear()
        assert "no answer from 127.0.0.1" in (await sender.send(to(endpoint.url))).problem


# ---------------------------------------------------------------- when again


def test_retry_after() -> None:
    assert retry_after("120", 0.0) == 120.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 1445412400.0) == 80.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 2e9) == 0.0
    assert [retry_after(text, 0.0) for text in ("", "soon", "-1", "1e3", "9" * 20, "٣")] == [None] * 6


@given(st.text())
def test_whatever_retry_after_says(text: str) -> None:
    assert (retry_after(text, 0.0) or 0.0) >= 0.0


def test_backoff_has_full_jitter_and_a_cap() -> None:
    source = random.Random(1)
    delays = [[Backoff().delay(attempt, source) for _ in range(200)] for attempt in (1, 5, 200)]
    assert [max(each) <= bound for each, bound in zip(delays, (2.0, 32.0, 900.0), strict=True)] == [True] * 3
    assert all(min(each) < max(each) / 20 for each in delays)
    # The retries that AWS's default policy has take about a day.
    total = sum(Backoff().delay(attempt, source) for attempt in range(1, 186))
    assert 60_000 < total < 100_000


def test_statuses() -> None:
    retried = {status for status in range(300, 600) if verdict_of_status(status) is Verdict.RETRY}
    assert {301, 401, 403, 404, 408, 409, 425, 429, 500, 503} < retried
    assert verdict_of_status(299) is Verdict.DELIVERED
    assert verdict_of_status(410) is Verdict.GONE
