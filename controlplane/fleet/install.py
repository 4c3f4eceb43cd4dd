"""`GET /install.sh` and the wheels it asks for: how a bare host gets the agent from its control plane.

A new host trusts nothing yet, so trust goes by digest: `homeport add-node` prints a command with the digest of
install.sh; that script carries the digests of the wheels and of the CA that the agent pins. Whoever pastes the command
has checked all that follows, whatever carried it. Nothing here is secret: the activation code is not in the script.
"""

import asyncio
import hashlib
import shlex
from pathlib import Path
from typing import Final

from aiohttp import web

from controlplane.context import Endpoints
from controlplane.fleet.wheels import Wheel, build_wheels, data_file

__all__ = ["PATH_INSTALL", "AgentInstaller", "install_routes"]

PATH_INSTALL: Final = "/install.sh"
_PATH_WHEEL: Final = "/fleet/v1/wheels/{name}"
_SCRIPT: Final = "share/homeport/install-agent"
_MARKER: Final = "# (filled in above)\n"
_LOOPBACK_ONLY: Final = (
    "This control plane listens on loopback only, so no other host can join it. Start it with an address of the "
    "network, e.g. --listen 0.0.0.0:6181.\n"
)


class AgentInstaller:
    """The installer of one control plane. Wheels are made on first demand, in a thread, and kept in `cache`."""

    def __init__(self, endpoints: Endpoints, cache: Path) -> None:
        self._endpoints = endpoints
        self._cache = cache
        self._wheels: dict[str, Wheel] = {}
        self._making = asyncio.Lock()

    async def wheels(self) -> dict[str, Wheel]:
        """Return the wheels by file name; takes seconds the first time.

        Raises OSError if the cache can't be written. On cancel: a wheel is there wholly or not at all.
        """
        async with self._making:
            if not self._wheels:
                made = await asyncio.to_thread(build_wheels, self._cache)
                self._wheels = {wheel.name: wheel for wheel in made}
        return self._wheels

    async def script(self, server_url: str) -> bytes:
        """Return install.sh for hosts that reach this control plane at `server_url`. Raises OSError."""
        wheels = "\n".join(f"{wheel.sha256} {wheel.name}" for wheel in (await self.wheels()).values())
        ca_hash = self._endpoints.ca_hash if server_url.startswith("https:") else None
        values = {"server": server_url, "ca_hash": ca_hash or "", "wheels": wheels}
        settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        head, marker, body = data_file(_SCRIPT).read_text().partition(_MARKER)
        return (head + settings + marker + body).encode()

    async def get_script(self, _request: web.Request) -> web.Response:
        """Answer with the script, its digest in a header; 409 where no other host could use it."""
        server_url = self._endpoints.network_url
        if server_url is None:
            return web.Response(status=409, text=_LOOPBACK_ONLY)
        script = await self.script(server_url)
        digest = hashlib.sha256(script).hexdigest()
        return web.Response(body=script, content_type="text/x-shellscript", headers={"X-Content-SHA256": digest})

    async def get_wheel(self, request: web.Request) -> web.StreamResponse:
        """Answer with a wheel that the script names; 404 for any other name."""
        wheel = (await self.wheels()).get(request.match_info["name"])
        if wheel is None:
            return web.Response(status=404, text="No such wheel: get a new install.sh.\n")
        return web.FileResponse(wheel.path)


def install_routes(endpoints: Endpoints, cache: Path) -> list[web.RouteDef]:
    """Return the routes of the installer; `cache`: a directory for the wheels it hands out."""
    installer = AgentInstaller(endpoints, cache)
    return [web.get(PATH_INSTALL, installer.get_script), web.get(_PATH_WHEEL, installer.get_wheel)]
