"""Joining: what is trusted, what is kept, and what an operator is told when it doesn't work."""

import random
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent.identity import Identity, JoinError, join, load_identity
from agent.uplink import Uplink
from controlplane.pki import Authority
from homeport.clock import SystemClock
from homeport.datadir import AgentDir, ControlPlaneDir
from homeport.errors import ConfigurationError
from homeport.protocol import PATH_REGISTER, HostFacts
from tests.fakes.fleet import FleetServer, eventually, serve_fleet
from tests.fakes.tasks import background
from tests.fakes.workload import FakeWorkload

FACTS = HostFacts(hostname="host-1", agent_version="1")
DAY_S = 86_400.0


class ShiftedClock(SystemClock):
    """The machine's clock, some days off."""

    def __init__(self, days: float) -> None:
        self._shift_s = days * DAY_S

    def now(self) -> float:
        return super().now() + self._shift_s


@asynccontextmanager
async def tls_fleet(
    directory: Path, *, names: tuple[str, ...] = ("127.0.0.1",), days: float = 0.0
) -> AsyncIterator[tuple[FleetServer, Authority]]:
    """A server with a CA of its own; `days`: how far its clock was off when its certificates were made."""
    authority = Authority.open(ControlPlaneDir(directory), names=names, clock=ShiftedClock(days))
    async with serve_fleet(tls=authority.server_context(), ca_pem=authority.ca_pem) as server:
        yield server, authority


async def joins(
    server: FleetServer, directory: Path, ca_hash: str | None = None, *, code: str | None = None, url: str | None = None
) -> Identity:
    identifier, right_code = server.activation()
    return await join(url or server.url, identifier, code or right_code, ca_hash, FACTS, AgentDir(directory))


async def test_a_pinned_host_joins_and_keeps_its_session_over_tls(tmp_path: Path) -> None:
    async with tls_fleet(tmp_path / "cp") as (server, authority):
        identity = await joins(server, tmp_path / "host", authority.ca_hash())
        directory = AgentDir(tmp_path / "host")
        assert load_identity(directory) == identity
        assert stat.S_IMODE(directory.identity.stat().st_mode) == 0o600
        assert directory.ca_certificate.read_bytes() == authority.ca_pem
        assert identity.private_key not in str(list(server.context.state.instances))
        workload = FakeWorkload(FACTS)
        uplink = Uplink(identity, workload, clock=SystemClock(), random=random.Random(1))
        async with background(uplink.run()):
            await eventually(lambda: workload.taken)
            assert uplink.connected


async def test_another_ca_is_not_trusted_and_nothing_is_sent_to_it(tmp_path: Path) -> None:
    async with tls_fleet(tmp_path / "cp") as (server, authority):
        wrong = "sha256:" + "0" * 64
        with pytest.raises(JoinError, match=f"has the hash {authority.ca_hash()}, not the expected {wrong}"):
            await joins(server, tmp_path / "host", wrong)
        assert len(server.context.state.instances) == 0
        assert load_identity(AgentDir(tmp_path / "host")) is None


async def test_a_man_in_the_middle_who_shows_the_right_ca_cannot_speak_for_it(tmp_path: Path) -> None:
    right = Authority.open(ControlPlaneDir(tmp_path / "cp"), names=("127.0.0.1",), clock=SystemClock())
    other = Authority.open(ControlPlaneDir(tmp_path / "mitm"), names=("127.0.0.1",), clock=SystemClock())
    async with serve_fleet(tls=other.server_context(), ca_pem=right.ca_pem) as server:
        with pytest.raises(JoinError, match="can't be verified with the pinned CA"):
            await joins(server, tmp_path / "host", right.ca_hash())
        assert len(server.context.state.instances) == 0


async def test_a_session_is_refused_when_the_server_changes_its_ca(tmp_path: Path) -> None:
    async with tls_fleet(tmp_path / "cp") as (server, authority):
        identity = await joins(server, tmp_path / "host", authority.ca_hash())
        port = server.port
    other = Authority.open(ControlPlaneDir(tmp_path / "other"), names=("127.0.0.1",), clock=SystemClock())
    async with serve_fleet(tls=other.server_context(), port=port):
        uplink = Uplink(identity, FakeWorkload(FACTS), clock=SystemClock(), random=random.Random(1))
        async with background(uplink.run()):
            await eventually(lambda: uplink.failure)
            assert "certificate" in uplink.failure.lower()
            assert uplink.sessions == 0


async def test_an_unknown_certificate_without_a_pin_is_refused_with_the_remedy(tmp_path: Path) -> None:
    async with tls_fleet(tmp_path / "cp") as (server, _):
        with pytest.raises(JoinError, match="--ca-hash"):
            await joins(server, tmp_path / "host")


async def test_another_name_than_the_certificates_is_named_as_the_cause(tmp_path: Path) -> None:
    async with tls_fleet(tmp_path / "cp", names=("control.example",)) as (server, authority):
        with pytest.raises(JoinError, match="advertised host"):
            await joins(server, tmp_path / "host", authority.ca_hash())


@pytest.mark.parametrize("days", [-200.0, 200.0])
async def test_a_clock_that_is_off_is_named_as_the_cause(tmp_path: Path, days: float) -> None:
    async with tls_fleet(tmp_path / "cp", days=days) as (server, authority):
        with pytest.raises(JoinError, match="This machine's clock says"):
            await joins(server, tmp_path / "host", authority.ca_hash())


async def test_the_servers_refusal_is_shown(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        with pytest.raises(JoinError, match="The activation id or code is wrong"):
            await joins(server, tmp_path, code="A" * 24)


async def test_joining_again_keeps_the_key_and_the_instance(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        first = await joins(server, tmp_path)
        again = await joins(server, tmp_path)
        assert again == first
        assert len(server.context.state.instances) == 1
        server.deregister(first.instance_id)
        third = await joins(server, tmp_path)
        assert third.private_key == first.private_key
        assert third.instance_id != first.instance_id


async def test_an_answer_that_got_lost_does_not_cost_a_registration(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        identifier, code = server.activation(limit=1)
        directory = AgentDir(tmp_path)
        first = await join(server.url, identifier, code, None, FACTS, directory)
        # As if this host had died before it could write down who it is: only the key is there.
        content = directory.identity.read_text().replace(first.instance_id, "")
        directory.identity.write_text(content)
        assert load_identity(directory) is None
        assert await join(server.url, identifier, code, None, FACTS, directory) == first


async def test_the_key_is_kept_before_it_is_sent(tmp_path: Path) -> None:
    keys: list[str] = []

    async def fail(request: web.Request) -> web.Response:
        keys.append((await request.json())["public_key"])
        return web.Response(status=502, text="bad gateway")

    app = web.Application()
    app.add_routes([web.post(PATH_REGISTER, fail)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        for _ in range(2):
            with pytest.raises(JoinError, match="HTTP 502"):
                await join(url, "id", "code", None, FACTS, AgentDir(tmp_path))
    finally:
        await runner.cleanup()
    assert len(keys) == 2
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("url", "ca_hash", "says"),
    [
        ("ftp://127.0.0.1", None, "must be a URL like"),
        ("127.0.0.1:80", None, "must be a URL like"),
        ("https://", None, "must be a URL like"),
        ("http://h:notaport", None, "not a URL"),
        ("http://192.0.2.1:80", None, "--allow-plain-http"),
        ("http://localhost.example:80", None, "--allow-plain-http"),
        ("http://127.0.0.1:80", "sha256:" + "0" * 64, "--ca-hash pins"),
        ("https://127.0.0.1:80", "md5:0", "64 hex digits"),
        ("http://127.0.0.1:1", None, "Cannot connect to http://127.0.0.1:1"),
        ("https://127.0.0.1:1", "sha256:" + "0" * 64, "Cannot connect to https://127.0.0.1:1"),
    ],
)
async def test_what_cannot_work_is_said_in_a_sentence(tmp_path: Path, url: str, ca_hash: str | None, says: str) -> None:
    with pytest.raises(JoinError, match=says) as caught:
        await join(url, "id", "code", ca_hash, FACTS, AgentDir(tmp_path))
    assert str(caught.value).endswith(".")


async def test_tls_to_a_plain_port_and_a_stranger_are_told_apart(tmp_path: Path) -> None:
    async with serve_fleet() as server:
        with pytest.raises(JoinError, match="does not speak TLS"):
            await joins(server, tmp_path, "sha256:" + "0" * 64, url=server.url.replace("http:", "https:"))
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        with pytest.raises(JoinError, match="not as a Homeport control plane does"):
            await join(url, "id", "code", None, FACTS, AgentDir(tmp_path))
    finally:
        await runner.cleanup()


async def test_a_damaged_identity_is_not_overwritten(tmp_path: Path) -> None:
    directory = AgentDir(tmp_path)
    directory.root.mkdir()
    directory.identity.write_text("{torn")
    with pytest.raises(ConfigurationError, match="is damaged"):
        load_identity(directory)
    with pytest.raises(ConfigurationError, match="is damaged"):
        await join("http://127.0.0.1:1", "id", "code", None, FACTS, directory)
    assert directory.identity.read_text() == "{torn"


async def test_python_verifies_the_certificate_by_name_and_address(tmp_path: Path) -> None:
    """OpenSSL, as the AWS CLI and requests use it, takes the chain with all its checks on."""
    names = ("localhost", "127.0.0.1")
    async with tls_fleet(tmp_path / "cp", names=names) as (server, authority):
        context = ssl.create_default_context(cadata=authority.ca_pem.decode())
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        async with aiohttp.ClientSession() as http:
            for name in names:
                async with http.get(f"https://{name}:{server.port}/fleet/v1/ca", ssl=context) as response:
                    assert await response.read() == authority.ca_pem
