"""`GET /homeport/v1/backup`: a backup of the running control plane, for those who hold an access key."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, Protocol

import structlog
from aiohttp import web

from controlplane.api.errors import ApiError
from controlplane.state.state import State
from controlplane.store.backup import Manifest, backup
from homeport.clock import Clock
from homeport.datadir import ControlPlaneDir
from homeport.errors import ConfigurationError, JournalError

__all__ = ["PATH_BACKUP", "REVISION_HEADER", "Authenticator", "backup_routes"]

PATH_BACKUP: Final = "/homeport/v1/backup"
#: The revision that the backup holds.
REVISION_HEADER: Final = "X-Homeport-Revision"

_WORKSHOP: Final = ".backup-"
_CHUNK_BYTES: Final = 256 * 1024

_log: Final = structlog.get_logger(__name__)


class Authenticator(Protocol):
    """What the route needs of the front door."""

    @property
    def authenticate(self) -> Callable[[web.Request, bytes], object]:
        """Raise ApiError unless the request, with this body, is signed by a known access key."""
        ...

    @property
    def error_response(self) -> Callable[[ApiError], web.Response]:
        """Render an error."""
        ...


def backup_routes(
    front_door: Authenticator, state: State, paths: ControlPlaneDir, clock: Clock
) -> list[web.AbstractRouteDef]:
    """Return the route. It makes one backup at a time, in the data directory, and streams it; nothing stays behind."""
    one_at_a_time = asyncio.Lock()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            front_door.authenticate(request, await request.read())
            async with one_at_a_time:
                manifest, file = await _make(state, paths, clock)
        except ApiError as error:
            return front_door.error_response(error)
        with file:
            _log.info("backup_taken", revision=manifest.revision)
            stamp = datetime.fromtimestamp(manifest.created_at, UTC).strftime("%Y%m%dT%H%M%SZ")
            return await _stream(request, file, name=f"homeport-{stamp}.tar", revision=manifest.revision)

    return [web.get(PATH_BACKUP, handle, allow_head=False)]


async def _make(state: State, paths: ControlPlaneDir, clock: Clock) -> tuple[Manifest, IO[bytes]]:
    """Make a backup of everything there is now. Its file has no name any more: it is gone once it is closed.

    Raises ApiError if it can't be made, e.g. for lack of space.
    """
    try:
        for leftover in paths.root.glob(f"{_WORKSHOP}*"):  # of a process that was killed in the middle
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=paths.root, prefix=_WORKSHOP) as directory:
            target = Path(directory) / "backup.tar"
            await state.durable()
            manifest = await backup(paths, target, clock=clock)
            return manifest, target.open("rb")
    except (OSError, JournalError, ConfigurationError) as error:
        _log.error("backup_failed", reason=str(error))
        raise ApiError(f"The backup can't be made: {error}", code="BackupFailedException", status=503) from error


async def _stream(request: web.Request, file: IO[bytes], *, name: str, revision: int) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/x-tar",
            "Content-Disposition": f'attachment; filename="{name}"',
            REVISION_HEADER: str(revision),
        }
    )
    response.content_length = file.seek(0, 2)
    file.seek(0)
    await response.prepare(request)
    while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
        await response.write(chunk)
    await response.write_eof()
    return response
