"""What a control plane hands to a host that joins: the script and the wheels."""

import asyncio
import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from packaging.utils import canonicalize_name, parse_wheel_filename

from controlplane.context import Endpoints
from controlplane.fleet.install import install_routes
from controlplane.fleet.wheels import Wheel, agent_distributions, build_wheels, data_file
from homeport import __version__

Client = TestClient[web.Request, web.Application]
CA_HASH = "sha256:" + "ab" * 32
ENDPOINTS = Endpoints(local_url="http://127.0.0.1:6180", network_url="https://10.1.2.3:6181", ca_hash=CA_HASH)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def wheels(cache: Path) -> dict[str, Wheel]:
    return {parse_wheel_filename(wheel.name)[0]: wheel for wheel in build_wheels(cache)}


def own(wheels: dict[str, Wheel]) -> zipfile.ZipFile:
    return zipfile.ZipFile(wheels["homeport"].path)


def test_the_agents_libraries_are_there_and_the_control_planes_are_not(wheels: dict[str, Wheel]) -> None:
    assert {"homeport", "aiohttp", "aiodocker", "psutil", "cryptography", "cffi", "msgspec"} <= wheels.keys()
    assert not {"botocore", "rich", "pytest", "lark"} & wheels.keys()


def test_every_requirement_of_every_wheel_that_holds_here_is_met_by_another(wheels: dict[str, Wheel]) -> None:
    assert {canonicalize_name(dist.name) for dist in agent_distributions()} == wheels.keys()


def test_each_file_matches_its_line_in_record(wheels: dict[str, Wheel]) -> None:
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel.path) as archive:
            (record,) = (name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
            rows = {name: digest for name, digest, _ in csv.reader(io.StringIO(archive.read(record).decode()))}
            assert rows.keys() == set(archive.namelist())
            for name, digest in rows.items():
                found = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).decode().rstrip("=")
                assert name == record or digest == f"sha256={found}", f"{wheel.name}: {name}"


def test_our_own_wheel_has_the_daemons_the_unit_and_the_commands(wheels: dict[str, Wheel]) -> None:
    with own(wheels) as archive:
        names = set(archive.namelist())
        data = f"homeport-{__version__}.data/data/share/homeport"
        assert {"homeport/protocol.py", "agent/workload.py", "controlplane/context.py"} <= names
        assert {f"{data}/install-agent", f"{data}/systemd/homeport-agent.service"} <= names
        assert b"homeport-agent = agent.main:main" in archive.read(f"homeport-{__version__}.dist-info/entry_points.txt")
        assert not [name for name in names if "__pycache__" in name or name.startswith("/")]


def test_making_them_again_gives_the_same_bytes(wheels: dict[str, Wheel], cache: Path) -> None:
    first = wheels["homeport"].path.read_bytes()
    again = {wheel.name: wheel.sha256 for wheel in build_wheels(cache)}
    assert again == {wheel.name: wheel.sha256 for wheel in wheels.values()}
    assert wheels["homeport"].path.read_bytes() == first


@pytest.fixture
async def client(cache: Path, wheels: dict[str, Wheel]) -> AsyncIterator[Client]:
    app = web.Application()
    app.add_routes(install_routes(ENDPOINTS, cache))
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_the_script_names_this_control_plane_its_ca_and_every_wheel(
    client: Client, wheels: dict[str, Wheel]
) -> None:
    response = await client.get("/install.sh")
    script = await response.text()
    assert response.status == 200
    assert response.headers["X-Content-SHA256"] == hashlib.sha256(script.encode()).hexdigest()
    lines = script.splitlines()
    assert "server=https://10.1.2.3:6181" in lines
    assert f"ca_hash={CA_HASH}" in lines
    for wheel in wheels.values():
        assert f"{wheel.sha256} {wheel.name}" in script
    assert script.startswith("#!/bin/sh\n")
    # What is filled in comes after the empty values, and before anything is done with them.
    assert lines.index("ca_hash=''") < lines.index(f"ca_hash={CA_HASH}") < lines.index('main "$@"')


async def test_the_script_is_a_shell_script_that_names_a_wrong_option(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "install.sh"
    path.write_bytes(await (await client.get("/install.sh")).read())
    shell = await asyncio.create_subprocess_exec("sh", path, "--nonsense", "x", stderr=asyncio.subprocess.PIPE)
    _, stderr = await shell.communicate()
    assert shell.returncode == 1
    assert stderr.decode() == "error: unknown option --nonsense (see --help)\n"


async def test_a_wheel_comes_as_promised_and_nothing_else_does(client: Client, wheels: dict[str, Wheel]) -> None:
    wheel = wheels["homeport"]
    response = await client.get(f"/fleet/v1/wheels/{wheel.name}")
    assert hashlib.sha256(await response.read()).hexdigest() == wheel.sha256
    for name in ("nothing.whl", "..%2Fstate.db", "%2Fetc%2Fpasswd"):
        assert (await client.get(f"/fleet/v1/wheels/{name}")).status == 404


async def test_a_control_plane_on_loopback_only_says_that_nobody_can_join(cache: Path) -> None:
    app = web.Application()
    app.add_routes(install_routes(Endpoints(local_url="http://127.0.0.1:1", network_url=None, ca_hash=None), cache))
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/install.sh")
        assert response.status == 409
        assert "--listen" in await response.text()


async def test_without_tls_the_script_pins_no_ca(cache: Path, wheels: dict[str, Wheel]) -> None:
    app = web.Application()
    plain = Endpoints(local_url="http://127.0.0.1:1", network_url="http://10.1.2.3:6180", ca_hash=CA_HASH)
    app.add_routes(install_routes(plain, cache))
    async with TestClient(TestServer(app)) as client:
        script = await (await client.get("/install.sh")).text()
        assert "server=http://10.1.2.3:6180" in script
        assert CA_HASH not in script


def test_every_data_file_is_found() -> None:
    assert data_file("share/homeport/install-agent").read_text().startswith("#!/bin/sh\n")
