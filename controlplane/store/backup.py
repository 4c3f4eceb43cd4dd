"""Backup and restore of a control plane: one .tar with the state, the first access key and the CA.

    manifest.json   format, versions, revision, time, and the SHA-256 of each file
    state.db        a complete, consistent copy of the database
    credentials.json  ca.pem  ca.key   as far as they exist

A backup is taken while the control plane runs and writes; it holds everything that was durable when it began. It is
secret: with it anybody can act as this installation. A restored control plane knows what the backup knows: hosts that
joined later have to join again, and tasks started later are not its own.
"""

import asyncio
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Final

import msgspec

from controlplane.store.lock import FileLock
from controlplane.store.migrations import MIGRATIONS, schema_version
from controlplane.store.sqlite import connect, lock_of, restoring_mark_of
from controlplane.store.waiting import finish
from homeport import __version__
from homeport.clock import Clock, SystemClock
from homeport.daemon import write_private
from homeport.datadir import ControlPlaneDir
from homeport.errors import ConfigurationError, JournalError

__all__ = ["Manifest", "backup", "restore", "write_backup"]

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_MANIFEST_MAX_BYTES: Final = 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself."""

    format: int
    homeport_version: str
    schema: int
    revision: int
    #: Epoch seconds.
    created_at: float
    #: File name -> SHA-256, hex.
    files: dict[str, str]


async def backup(paths: ControlPlaneDir, target: Path, *, clock: Clock | None = None, force: bool = False) -> Manifest:
    """Write a backup of the control plane in `paths` to the new file `target`, mode 0600; it is durable on return.

    Works beside a running control plane, and without one. Raises ConfigurationError if there is nothing to back up or
    `target` exists (and not `force`), JournalError if the database can't be read, OSError if `target` can't be
    written. On cancel it is finished first: its thread can't be stopped.
    """
    call = partial(write_backup, paths, target, clock=clock, force=force)
    writing = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled = await finish(writing)
    if cancelled is not None:
        raise cancelled
    return writing.result()


def write_backup(paths: ControlPlaneDir, target: Path, *, clock: Clock | None = None, force: bool = False) -> Manifest:
    """Do what `backup` says, in this thread."""
    if not paths.database.exists():
        raise ConfigurationError(f"there is no control plane in {paths.root.parent}: {paths.database} does not exist")
    if target.exists() and not force:
        raise ConfigurationError(f"{target} exists already; choose another name, or force overwriting it")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as workshop:
        copy = Path(workshop) / paths.database.name
        schema, revision = _copy_database(paths.database, copy)
        files = [copy, *(path for path in (paths.credentials, paths.ca_certificate, paths.ca_key) if path.exists())]
        manifest = Manifest(
            format=_FORMAT,
            homeport_version=__version__,
            schema=schema,
            revision=revision,
            created_at=(clock or SystemClock()).now(),
            files={path.name: _sha256(path) for path in files},
        )
        archive = Path(workshop) / "backup.tar"
        _write_tar(archive, manifest, files)
        if force:
            archive.replace(target)
        else:
            os.link(archive, target)  # unlike a rename, this never replaces a file that has come meanwhile
    _sync_directory(target.parent)
    return manifest


def restore(source: Path, data_dir: Path, *, clock: Clock | None = None, force: bool = False) -> Manifest:
    """Put a backup in place as the control plane of `data_dir`; what was there is kept in a directory beside it.

    Everything is checked before anything is touched. Raises ConfigurationError if the backup can't be used (damaged,
    incomplete, of a newer schema), a process runs on `data_dir`, or there is a control plane in it (and not `force`).
    A restore that was interrupted is completed by another one; until then the control plane refuses to start.
    """
    paths = ControlPlaneDir(data_dir)
    paths.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark = restoring_mark_of(paths.database)
    with FileLock(lock_of(paths.database)):
        occupied = [path for path in _belongings(paths) if path.exists()]
        if occupied and not force and not mark.exists():
            raise ConfigurationError(
                f"there is a control plane in {data_dir} already ({occupied[0].name}); restore into an empty data "
                "directory, or force it: the present one is then kept aside"
            )
        with tempfile.TemporaryDirectory(dir=paths.root, prefix=".restore-") as workshop:
            manifest = _unpack(source, Path(workshop), known=[path.name for path in _backed_up(paths)])
            _check_database(Path(workshop) / paths.database.name, manifest)
            write_private(mark, b"An interrupted restore: run it again.\n")
            _keep_aside(paths, occupied, (clock or SystemClock()).now())
            for path in _backed_up(paths):
                if path.name in manifest.files:
                    (Path(workshop) / path.name).replace(path)
            _sync_directory(paths.root)
            mark.unlink()
            _sync_directory(paths.root)
    return manifest


# ---------------------------------------------------------------- making a backup


def _copy_database(source: Path, target: Path) -> tuple[int, int]:
    """Copy the database as it is at this moment; return its schema and revision. Writers go on meanwhile."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(connect(source)) as reading, closing(connect(target)) as writing:
            reading.execute("PRAGMA query_only = ON")
            reading.backup(writing)  # all pages in one read transaction: a snapshot
            writing.execute("PRAGMA journal_mode = DELETE").fetchone()
            return schema_version(writing), _revision(writing)
    except sqlite3.Error as error:
        raise JournalError(f"can't copy {source}: {error}") from error


def _write_tar(archive: Path, manifest: Manifest, files: list[Path]) -> None:
    descriptor = os.open(archive, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            document = msgspec.json.format(msgspec.json.encode(manifest))
            tar.addfile(_member(_MANIFEST, len(document), manifest.created_at), io.BytesIO(document))
            for path in files:
                with path.open("rb") as content:
                    tar.addfile(_member(path.name, path.stat().st_size, manifest.created_at), content)
        file.flush()
        os.fsync(descriptor)


def _member(name: str, size: int, at: float) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mtime = int(at)
    member.mode = 0o600
    return member


# ---------------------------------------------------------------- putting one back


def _backed_up(paths: ControlPlaneDir) -> tuple[Path, ...]:
    return paths.database, paths.credentials, paths.ca_certificate, paths.ca_key


def _belongings(paths: ControlPlaneDir) -> tuple[Path, ...]:
    """Return every file of a control plane that must not be mixed with another one's."""
    write_ahead = tuple(paths.database.with_name(paths.database.name + suffix) for suffix in ("-wal", "-shm"))
    return (*_backed_up(paths), *write_ahead, paths.server_certificate, paths.server_key, paths.endpoint)


@contextmanager
def _refusing(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, msgspec.MsgspecError, sqlite3.Error, EOFError) as error:
        raise ConfigurationError(f"{source} is not a usable backup: {error}") from error


def _unpack(source: Path, workshop: Path, *, known: list[str]) -> Manifest:
    """Take the known files out of the archive and check them against its manifest."""
    with _refusing(source), tarfile.open(source, mode="r:*") as tar:
        first = tar.next()
        if first is None or first.name != _MANIFEST or not first.isreg() or first.size > _MANIFEST_MAX_BYTES:
            raise ConfigurationError(f"{source} is not a Homeport backup: it doesn't begin with {_MANIFEST}")
        manifest = msgspec.json.decode(_content(tar, first).read(), type=Manifest)
        if manifest.format > _FORMAT:
            raise ConfigurationError(
                f"{source} was made by Homeport {manifest.homeport_version} in a format this version doesn't know"
            )
        while (member := tar.next()) is not None:
            if member.name not in manifest.files or member.name not in known or not member.isreg():
                raise ConfigurationError(f"{source} is not a usable backup: it has an unexpected {member.name!r}")
            path = workshop / member.name
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with _content(tar, member) as content, os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
    for name, digest in manifest.files.items():
        if not (workshop / name).exists() or _sha256(workshop / name) != digest:
            raise ConfigurationError(f"{source} is damaged: {name} is missing or not as it was backed up")
    return manifest


def _check_database(database: Path, manifest: Manifest) -> None:
    """Refuse a database that is broken or can't be migrated to this version's schema."""
    newest = max(MIGRATIONS)
    if manifest.schema > newest:
        raise ConfigurationError(
            f"the backup was made by Homeport {manifest.homeport_version} with schema {manifest.schema}; this version "
            f"knows schemas up to {newest}: restore it with the version that made it, or a newer one"
        )
    if not database.exists():
        raise ConfigurationError(f"the backup has no {database.name}")
    with _refusing(database), closing(connect(database)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            raise ConfigurationError(f"the backup's database is damaged: {verdict}")
        if (schema_version(connection), _revision(connection)) != (manifest.schema, manifest.revision):
            raise ConfigurationError("the backup's database isn't the one its manifest describes")


def _keep_aside(paths: ControlPlaneDir, occupied: list[Path], now: float) -> None:
    if not occupied:
        return
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = Path(tempfile.mkdtemp(dir=paths.root, prefix=f"before-restore-{stamp}-"))
    for path in occupied:
        path.replace(aside / path.name)
    _sync_directory(aside)


# ---------------------------------------------------------------- files


def _revision(connection: sqlite3.Connection) -> int:
    (revision,) = connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()
    return int(revision)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # it is a regular file
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
