"""The fixtures of the contract tests: `server`, and `ecs`, a boto3 client of it."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from controlplane.state.validate import validate, validate_commit
from controlplane.store.documents import decode_record, encode
from tests.contract.server import ApiServer, LoopThread


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
