"""`GET /healthz` and `GET /readyz`, for load balancers and scripts. Unsigned; they tell nothing but yes or no."""

import asyncio
from typing import Final

from aiohttp import web

from controlplane.state.state import State
from homeport.errors import JournalError

__all__ = ["health_routes"]

#: A write that takes longer than this means the disk isn't fit to answer from.
_DURABLE_WITHIN_S: Final = 2.0


def health_routes(state: State) -> list[web.RouteDef]:
    """Return the two routes.

    `/healthz`: the event loop turns. `/readyz`: what is in memory also becomes durable, so requests can be answered;
    503 otherwise.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_DURABLE_WITHIN_S):
                await state.durable()
        except (TimeoutError, JournalError):
            return web.Response(status=503, text="the journal does not keep up with writing\n")
        return web.Response(text="ok\n")

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
