"""The fixtures of contract tests: `server`, its boto3 clients `ecs` and `events`, and `homeport`, the command line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from click.testing import CliRunner, Result

from controlplane.state.validate import validate, validate_commit
from controlplane.store.documents import decode_record, encode
from homeport.cli.group import cli
from homeport.datadir import ControlPlaneDir, CredentialsFile, EndpointFile
from tests.contract.commandline import Homeport
from tests.contract.server import ACCESS_KEY_ID, ACCOUNT, REGION, SECRET, ApiServer, LoopThread


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    thread.start()
    yield thread
    thread.stop()


@pytest.fixture(scope="session")
def boto_session() -> Iterator[boto3.Session]:
    """One session for all clients: it caches the models. The user's own AWS files are not read."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, "/dev/null")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        yield boto3.Session()


@pytest.fixture
def server(loop_thread: LoopThread, boto_session: boto3.Session) -> Iterator[ApiServer]:
    """A server with nothing but the default cluster.

    Fails a test during which it had an internal error, broke an invariant, or kept what a restart would read otherwise.
    """
    server = ApiServer(loop_thread, boto_session)
    loop_thread.call(server.start)
    try:
        yield server
    finally:
        server.close_clients()
        loop_thread.call(server.stop)
    assert [entry for entry in server.observed if entry[2] == "ServerException"] == []
    validate(server.context.state)
    for commit in server.journal.commits:
        validate_commit(commit)
    for table in server.context.state.tables:
        for record in table:
            assert decode_record(record.kind, record.key, encode(record)) == record


@pytest.fixture
def ecs(server: ApiServer) -> Any:
    """A boto3 ECS client."""
    return server.client("ecs")


@pytest.fixture
def events(server: ApiServer) -> Any:
    """A boto3 EventBridge client."""
    return server.client("events")


@pytest.fixture
def data_dir(server: ApiServer, tmp_path: Path) -> Path:
    """The files that the server's control plane would have written."""
    paths = ControlPlaneDir(tmp_path / "data")
    paths.root.mkdir(parents=True)
    endpoint = EndpointFile(
        local_url=server.url,
        network_url=None,
        region=REGION,
        account=ACCOUNT,
        ca_bundle=None,
        ca_hash=None,
        pid=1,
    )
    paths.endpoint.write_bytes(msgspec.json.encode(endpoint))
    key = CredentialsFile(access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET)
    paths.credentials.write_bytes(msgspec.json.encode(key))
    return tmp_path / "data"


@pytest.fixture
def homeport(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homeport:
    """Run the command line against the server, in a home directory of its own."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws" / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws" / "credentials"))
    monkeypatch.setenv("HOMEPORT_DATA_DIR", str(data_dir))

    def run(*arguments: str, code: int = 0, environment: dict[str, str | None] | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, env=environment, prog_name="homeport")
        assert result.exit_code == code, f"{result.exit_code}\n{result.output}"
        assert "Traceback" not in result.output
        return result

    return run
