"""One machine's installation, as `homeport up` runs it: a control plane and an agent, supervised together.

The order: the control plane is ready, the agent has joined, the agent is connected; only then is it said to be ready.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from homeport.cli.client import Client
from homeport.cli.connection import from_data_dir
from homeport.cli.datafiles import read_endpoint
from homeport.cli.errors import CliError
from homeport.cli.ports import is_free
from homeport.cli.settings import UpSettings
from homeport.cli.supervisor import Child, ChildFailed
from homeport.clock import Clock
from homeport.datadir import AgentDir, EndpointFile

__all__ = ["Installation"]

#: A control plane is ready within a second or two; loading a large journal takes longer.
_READY_TIMEOUT_S: Final = 120.0
_CONNECTED_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1


class _Identity(msgspec.Struct, frozen=True):
    """What `identity.json` of the agent tells us (`agent.identity.Identity`); all empty if it hasn't joined."""

    instance_id: str = ""
    servers: tuple[str, ...] = ()


class Installation:
    """The two daemons of one machine. `start` returns when both are up; they run in the TaskGroup it is given."""

    def __init__(self, settings: UpSettings, *, say: Callable[[str], None], clock: Clock) -> None:
        self._settings = settings
        self._say = say
        self._clock = clock
        self._endpoint: EndpointFile | None = None
        self.control_plane = self._child("the control plane", self._control_plane_command, "controlplane.log")
        self.agent = self._child("the agent", self._agent_command, "agent.log", is_over=self._deregistered)

    async def start(self, group: asyncio.TaskGroup) -> EndpointFile:
        """Start both daemons and wait until the host is connected. Returns where the control plane listens.

        Raises CliError, or the group fails with ChildFailed, if one of them can't start.
        """
        self._endpoint = self._earlier_endpoint()
        group.create_task(self.control_plane.run())
        endpoint = self._endpoint = await self._control_plane_ready()
        self.control_plane.established = True
        self._say(_listening(endpoint))
        if self._settings.agent:
            await self._join(endpoint)
            group.create_task(self.agent.run())
            node = await self._agent_connected()
            self.agent.established = True
            name = f"{node['id'][:12]} ({node['hostname']}, Docker {node['dockerVersion']})"
            self._say(f"the agent is connected: this machine is the node {name}")
        return endpoint

    # ---------------------------------------------------------------- commands

    def _child(
        self,
        name: str,
        command: Callable[[], list[str]],
        log: str,
        *,
        is_over: Callable[[], Awaitable[bool]] | None = None,
    ) -> Child:
        settings = self._settings
        # Keys go through the environment: arguments can be read by every user of the machine.
        keys = {
            "HOMEPORT_ACCESS_KEY_ID": settings.access_key_id,
            "HOMEPORT_SECRET_ACCESS_KEY": settings.secret_access_key,
        }
        return Child(
            name,
            command,
            environment={**os.environ, **{name: value for name, value in keys.items() if value is not None}},
            log=settings.data_dir / log if settings.quiet else None,
            say=self._say,
            clock=self._clock,
            is_over=is_over,
        )

    def _control_plane_command(self) -> list[str]:
        settings = self._settings
        command = [sys.executable, "-m", "controlplane.main", "run", "--data-dir", str(settings.data_dir)]
        for address in self._listen():
            command += ["--listen", address]
        if settings.insecure_http:
            command.append("--insecure-http")
        for flag, value in (
            ("--advertise", settings.advertise),
            ("--region", settings.region),
            ("--account", settings.account),
        ):
            if value is not None:
                command += [flag, value]
        return command

    def _listen(self) -> tuple[str, ...]:
        """Return the addresses to listen on.

        In place of a port 0 comes the one that was found the last time: agents and AWS profiles know it.
        """
        listen = self._settings.listen
        if self._endpoint is None or len(listen) != 1 or not listen[0].endswith(":0"):
            return listen
        return (f"{listen[0].removesuffix(':0')}:{urlsplit(self._endpoint.local_url).port}",)

    def _earlier_endpoint(self) -> EndpointFile | None:
        """Return where an earlier control plane of this data directory listened, if its port is free now."""
        try:
            endpoint = read_endpoint(self._settings.data_dir)
        except CliError:
            return None
        url = urlsplit(endpoint.local_url)
        return endpoint if url.port and is_free(url.port, host=url.hostname or "") else None

    def _agent_command(self) -> list[str]:
        return [*self._agent("run"), "--docker-host", self._settings.docker_host, "--metrics-listen", "127.0.0.1:0"]

    def _agent(self, command: str) -> list[str]:
        return [sys.executable, "-m", "agent.main", command, "--data-dir", str(self._settings.data_dir)]

    # ---------------------------------------------------------------- waiting

    async def _control_plane_ready(self) -> EndpointFile:
        """Wait until our control plane, and not an earlier one, has written where it listens and answers there."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while True:
                    endpoint = self._written_endpoint()
                    if endpoint is not None and await asyncio.to_thread(self._answers):
                        return endpoint
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise CliError(f"The control plane isn't ready after {_READY_TIMEOUT_S:g} s.") from None

    def _written_endpoint(self) -> EndpointFile | None:
        try:
            endpoint = read_endpoint(self._settings.data_dir)
        except CliError:
            return None
        return endpoint if endpoint.pid == self.control_plane.pid else None

    def _answers(self) -> bool:
        try:
            return self.client().get("/readyz") == 200
        except CliError:
            return False

    def client(self) -> Client:
        """Return a client of the control plane, once it has been started."""
        return Client(from_data_dir(self._settings.data_dir))

    async def _join(self, endpoint: EndpointFile) -> None:
        """Make this machine a host of the control plane, unless it is one.

        Joining again keeps the host's key: if the control plane knows it, it stays the same container instance.
        """
        if await asyncio.to_thread(self._has_joined, endpoint):
            return
        activation = await asyncio.to_thread(lambda: self.client().own("JoinCommand", description="homeport up"))
        command = [
            *self._agent("join"),
            *("--docker-host", self._settings.docker_host),
            *("--server", endpoint.local_url),
            *("--activation-id", activation["activationId"], "--activation-code", activation["activationCode"]),
        ]
        if endpoint.local_url.startswith("https://") and endpoint.ca_hash:
            command += ["--ca-hash", endpoint.ca_hash]
        if self._settings.insecure_http:
            command.append("--allow-plain-http")
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        if process.returncode:
            lines = output.decode(errors="replace").strip().splitlines() or [""]
            raise ChildFailed("joining this machine", process.returncode, lines[-1])

    async def _agent_connected(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_CONNECTED_TIMEOUT_S):
                while True:
                    node = await asyncio.to_thread(lambda: self._node(self._identity()))
                    if node is not None and node["connected"]:
                        return node
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise CliError(
                f"The agent isn't connected to the control plane after {_CONNECTED_TIMEOUT_S:g} s.",
                hint="Its log says why."
                if not self._settings.quiet
                else f"{self._settings.data_dir}/agent.log says why.",
            ) from None

    def _has_joined(self, endpoint: EndpointFile) -> bool:
        """Tell whether the agent would find the control plane where it is now, and be known there."""
        identity = self._identity()
        return endpoint.local_url in identity.servers and self._node(identity) is not None

    def _node(self, identity: "_Identity") -> dict[str, Any] | None:
        """Return this machine as the control plane sees it; None if it isn't (or no longer) one of its hosts."""
        if not identity.instance_id:
            return None
        nodes: list[dict[str, Any]] = self.client().own("DescribeNodes", node=identity.instance_id)["nodes"]
        return nodes[0] if nodes else None

    async def _deregistered(self) -> bool:
        """Tell whether the agent ended because this machine is no longer wanted as a host, and say so."""
        try:
            node = await asyncio.to_thread(lambda: self._node(self._identity()))
        except CliError:
            return False
        if node is None:
            self._say(
                "this machine was deregistered and its tasks have stopped; `homeport up` anew makes it a host again"
            )
        return node is None

    def _identity(self) -> "_Identity":
        try:
            content = AgentDir(self._settings.data_dir).identity.read_bytes()
            return msgspec.json.decode(content, type=_Identity)
        except (OSError, msgspec.MsgspecError):
            return _Identity()


def _listening(endpoint: EndpointFile) -> str:
    others = f"; other hosts reach it at {endpoint.network_url}" if endpoint.network_url else ""
    return f"the control plane listens on {endpoint.local_url}{others}"
