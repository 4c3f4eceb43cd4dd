"""Backup and restore: complete, consistent, private; refused whenever something would be lost or is damaged."""

import asyncio
import io
import sqlite3
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from controlplane.api.errors import AccessDeniedException, ApiError
from controlplane.state.records import ClusterRecord
from controlplane.state.state import State, load_state
from controlplane.store.backup import backup, restore
from controlplane.store.backup_route import PATH_BACKUP, REVISION_HEADER, backup_routes
from controlplane.store.sqlite import SqliteJournal, restoring_mark_of
from homeport.clock import SystemClock
from homeport.datadir import ControlPlaneDir
from homeport.errors import ConfigurationError
from tests.fakes.journal import MemoryJournal


@pytest.fixture
def paths(tmp_path: Path) -> ControlPlaneDir:
    paths = ControlPlaneDir(tmp_path / "data")
    paths.root.mkdir(parents=True)
    paths.credentials.write_text('{"access_key_id": "AKIA"}')
    paths.ca_certificate.write_text("certificate")
    paths.ca_key.write_text("key")
    paths.server_certificate.write_text("server certificate")
    return paths


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


@asynccontextmanager
async def control_plane(paths: ControlPlaneDir) -> AsyncIterator[State]:
    async with SqliteJournal.open(paths.database) as journal:
        state = await load_state(journal)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(journal.run())
            yield state
            writing.cancel()


def put(state: State, name: str) -> None:
    with state.transaction() as transaction:
        transaction.put(ClusterRecord(name=name, created_at=1.0))


async def names(paths: ControlPlaneDir) -> list[str]:
    async with control_plane(paths) as state:
        return [cluster.name for cluster in state.clusters]


async def take_backup(paths: ControlPlaneDir, target: Path) -> None:
    async with control_plane(paths) as state:
        put(state, "kept")
        await state.durable()
        await backup(paths, target)


async def test_a_backup_of_a_running_control_plane_is_restored_elsewhere(
    paths: ControlPlaneDir, target: Path, tmp_path: Path
) -> None:
    async with control_plane(paths) as state:
        put(state, "kept")
        await state.durable()
        manifest = await backup(paths, target)
        put(state, "later")
        await state.durable()
    assert manifest.revision == 1
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir() if path.is_file()] == ["backup.tar"]

    elsewhere = ControlPlaneDir(tmp_path / "elsewhere")
    assert restore(target, tmp_path / "elsewhere") == manifest
    assert await names(elsewhere) == ["kept"]
    assert elsewhere.credentials.read_text() == paths.credentials.read_text()
    assert elsewhere.ca_certificate.read_text() == "certificate"
    assert elsewhere.ca_key.read_text() == "key"
    assert not elsewhere.server_certificate.exists()
    assert {path.stat().st_mode & 0o777 for path in elsewhere.root.iterdir()} == {0o600}


async def test_a_backup_is_consistent_while_commits_go_on(paths: ControlPlaneDir, target: Path) -> None:
    """Each commit moves the one marker cluster; a copy made at any instant has exactly one, of its own revision."""
    async with control_plane(paths) as state:
        done = asyncio.Event()

        async def keep_committing() -> None:
            while not done.is_set():
                with state.transaction() as transaction:
                    for cluster in tuple(state.clusters):
                        transaction.delete(cluster)
                    transaction.put(ClusterRecord(name=f"c{state.revision + 1}", created_at=1.0))
                await state.durable()

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_committing())
            manifests = [await backup(paths, target.with_suffix(f".{n}")) for n in range(5)]
            done.set()
    assert manifests[-1].revision > manifests[0].revision
    for number, manifest in enumerate(manifests):
        restored = ControlPlaneDir(target.parent / f"restored{number}")
        restore(target.with_suffix(f".{number}"), target.parent / f"restored{number}")
        assert await names(restored) == ([f"c{manifest.revision}"] if manifest.revision else [])


async def test_an_existing_file_is_not_overwritten_unless_forced(paths: ControlPlaneDir, target: Path) -> None:
    await take_backup(paths, target)
    before = target.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        await backup(paths, target)
    assert target.read_bytes() == before
    await backup(paths, target, force=True)
    assert target.read_bytes() != before


async def test_there_must_be_something_to_back_up(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ConfigurationError, match="no control plane"):
        await backup(ControlPlaneDir(tmp_path / "empty"), target)


async def test_restoring_beside_a_running_control_plane_is_refused(paths: ControlPlaneDir, target: Path) -> None:
    await take_backup(paths, target)
    async with control_plane(paths):
        with pytest.raises(ConfigurationError, match="in use"):
            restore(target, paths.root.parent, force=True)
    assert await names(paths) == ["kept"]


async def test_restoring_over_a_control_plane_needs_force_and_keeps_the_old_one_aside(
    paths: ControlPlaneDir, target: Path
) -> None:
    await take_backup(paths, target)
    async with control_plane(paths) as state:
        put(state, "later")
    with pytest.raises(ConfigurationError, match="force"):
        restore(target, paths.root.parent)
    assert await names(paths) == ["kept", "later"]
    restore(target, paths.root.parent, force=True)
    assert await names(paths) == ["kept"]
    (aside,) = paths.root.glob("before-restore-*")
    assert {path.name for path in aside.iterdir()} == {
        "state.db", "credentials.json", "ca.pem", "ca.key", "server.pem",
    }  # fmt: skip
    with sqlite3.connect(aside / "state.db") as old:
        assert {key for (key,) in old.execute("SELECT key FROM objects")} == {"kept", "later"}
    old.close()


def rewritten(target: Path, change: dict[str, bytes | None]) -> Path:
    """Return a copy of the archive with members replaced, added, or (None) left out."""
    other = target.with_suffix(".rewritten.tar")
    with tarfile.open(target) as old, tarfile.open(other, "w") as new:
        contents = {member.name: old.extractfile(member).read() for member in old}  # type: ignore[union-attr]
        for name, content in {**contents, **change}.items():
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return other


def manifest_of(target: Path) -> dict[str, object]:
    with tarfile.open(target) as tar:
        return msgspec.json.decode(tar.extractfile("manifest.json").read())  # type: ignore[union-attr, no-any-return]


async def test_a_backup_that_cannot_be_used_is_refused_and_nothing_is_touched(
    paths: ControlPlaneDir, target: Path, tmp_path: Path
) -> None:
    await take_backup(paths, target)
    manifest = manifest_of(target)
    truncated = tmp_path / "truncated.tar"
    truncated.write_bytes(target.read_bytes()[:5000])
    nonsense = tmp_path / "nonsense.tar"
    nonsense.write_bytes(b"not a tar")
    cases = {truncated: "not a usable backup|damaged", nonsense: "not a usable backup"}
    changes: list[tuple[dict[str, bytes | None], str]] = [
        ({"state.db": b"x" * 4096}, "state.db is missing or not as it was"),
        ({"ca.key": None}, "ca.key is missing"),
        ({"../escape": b"x"}, "unexpected '../escape'"),
        ({"manifest.json": None}, "doesn't begin with manifest.json"),
        ({"manifest.json": b"{}"}, "not a usable backup"),
        ({"manifest.json": msgspec.json.encode({**manifest, "schema": 99})}, "schema 99"),
        ({"manifest.json": msgspec.json.encode({**manifest, "format": 99})}, "format"),
        ({"manifest.json": msgspec.json.encode({**manifest, "revision": 7})}, "isn't the one its manifest"),
    ]
    for number, (change, message) in enumerate(changes):
        cases[rewritten(target, change).rename(tmp_path / f"{number}.tar")] = message
    for source, message in cases.items():
        with pytest.raises(ConfigurationError, match=message):
            restore(source, tmp_path / "elsewhere")
    assert [path.name for path in ControlPlaneDir(tmp_path / "elsewhere").root.iterdir()] == ["state.lock"]
    assert not list(tmp_path.rglob("escape"))


async def test_an_interrupted_restore_must_be_completed_before_a_start(paths: ControlPlaneDir, target: Path) -> None:
    await take_backup(paths, target)
    restoring_mark_of(paths.database).touch()
    with pytest.raises(ConfigurationError, match="restore was interrupted"):
        await SqliteJournal(paths.database).start()
    restore(target, paths.root.parent)
    assert await names(paths) == ["kept"]


class Door:
    """A front door that lets in whoever says the word."""

    @staticmethod
    def authenticate(request: web.Request, body: bytes) -> None:
        if request.headers.get("Authorization") != "please":
            raise AccessDeniedException("no")

    @staticmethod
    def error_response(error: ApiError) -> web.Response:
        return web.json_response({"__type": error.code}, status=error.status)


async def test_the_route_streams_a_backup_to_who_is_authentic_and_leaves_nothing_behind(
    paths: ControlPlaneDir, target: Path, tmp_path: Path
) -> None:
    async with control_plane(paths) as state:
        application = web.Application()
        application.add_routes(backup_routes(Door(), state, paths, SystemClock()))
        (paths.root / ".backup-of-a-killed-process").mkdir()
        async with TestClient(TestServer(application)) as client:
            refused = await client.get(PATH_BACKUP)
            assert refused.status == 400
            assert await refused.json() == {"__type": "AccessDeniedException"}
            put(state, "kept")
            answer = await client.get(PATH_BACKUP, headers={"Authorization": "please"})
            assert answer.status == 200
            assert answer.headers[REVISION_HEADER] == "1"
            target.write_bytes(await answer.read())
        assert not list(paths.root.glob(".backup*"))
    restore(target, tmp_path / "elsewhere")
    assert await names(ControlPlaneDir(tmp_path / "elsewhere")) == ["kept"]


async def test_the_route_says_why_a_backup_cannot_be_made(tmp_path: Path) -> None:
    paths = ControlPlaneDir(tmp_path / "data")
    paths.root.mkdir(parents=True)
    application = web.Application()
    application.add_routes(backup_routes(Door(), State(MemoryJournal()), paths, SystemClock()))
    async with TestClient(TestServer(application)) as client:
        answer = await client.get(PATH_BACKUP, headers={"Authorization": "please"})
        assert answer.status == 503
        assert await answer.json() == {"__type": "BackupFailedException"}
