"""Is there a Docker Engine? Asked before an agent is started, so that the answer is a sentence and not a log."""

import asyncio
import os
import stat
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["DEFAULT_DOCKER_HOST", "why_no_docker"]

DEFAULT_DOCKER_HOST: Final = "unix:///var/run/docker.sock"
_TIMEOUT_S: Final = 10.0
_PING: Final = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"


async def why_no_docker(docker_host: str) -> str | None:
    """Return why the Engine at `docker_host` can't be used, in one sentence; None if it answers.

    Understands unix:// and tcp:// (or http://) addresses; others are left for the agent to judge.
    """
    url = urlsplit(docker_host)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            if url.scheme == "unix":
                answer = await _ping_socket(Path(url.path))
            elif url.scheme in ("tcp", "http") and url.hostname and not os.environ.get("DOCKER_TLS_VERIFY"):
                answer = await _ping(*await asyncio.open_connection(url.hostname, url.port or 2375))
            else:
                return None
    except TimeoutError:
        return f"Docker at {docker_host} doesn't answer within {_TIMEOUT_S:g} s."
    except FileNotFoundError:
        return f"There is no Docker at {docker_host}."
    except PermissionError:
        return f"You may not use the Docker at {docker_host}: its socket belongs to root and the group docker."
    except OSError as error:
        return f"Docker at {docker_host} can't be reached: {error.strerror or error}."
    if b"200 OK" not in answer.split(b"\r\n", 1)[0]:
        return f"What listens at {docker_host} isn't a Docker Engine."
    return None


async def _ping_socket(path: Path) -> bytes:
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileNotFoundError(path)
    return await _ping(*await asyncio.open_unix_connection(path))


async def _ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    try:
        writer.write(_PING)
        return await reader.readline()
    finally:
        writer.close()
