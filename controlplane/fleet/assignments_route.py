"""`GET /fleet/v1/instances/ID/assignments`: a host's assignment set, for a person who wants to know what it was told.

Signed as every other request of a person is, for a set holds the environments of tasks. `ID`: the last part of the
container instance's ARN.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
from aiohttp import web

from controlplane.api.errors import ApiError
from controlplane.context import Context
from controlplane.fleet.assignments import complete_set
from homeport.ids import InstanceId

__all__ = ["PATH_ASSIGNMENTS", "Authenticator", "assignments_routes"]

PATH_ASSIGNMENTS: Final = "/fleet/v1/instances/{id}/assignments"


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


def assignments_routes(context: Context, front_door: Authenticator) -> list[web.AbstractRouteDef]:
    """Return the route. It answers with an `Assignments` message, complete and indented, once it is durable."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            front_door.authenticate(request, await request.read())
            instance_id = InstanceId(request.match_info["id"])
            if context.state.instances.get(instance_id) is None:
                raise ApiError(
                    f"There is no container instance {instance_id[:64]!r}.",
                    code="ResourceNotFoundException",
                    status=404,
                )
        except ApiError as error:
            return front_door.error_response(error)
        complete = complete_set(context.state, instance_id)
        await context.state.durable(complete.revision)
        body = msgspec.json.format(msgspec.json.encode(complete)) + b"\n"
        return web.Response(body=body, content_type="application/json")

    return [web.get(PATH_ASSIGNMENTS, handle, allow_head=False)]
