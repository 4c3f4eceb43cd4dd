"""What the benchmarks share: summaries, the machine's description, a signed request, wrk."""

import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.packages import install_debian_package

__all__ = ["Json", "machine", "signed", "summary", "wrk"]

Json = dict[str, Any]

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def summary(values: Sequence[float]) -> Json:
    """Minimum, median and maximum: these machines are noisy, so quote the median and look at the spread."""
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
        "runs": len(values),
    }


def machine() -> Json:
    """What was measured on, and how busy it is (the suite itself included)."""
    return {
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def signed(url: str, target: str, body: Json, *, key_id: str, secret: str, service: str = "ecs") -> tuple[Json, str]:
    """Return headers and body of a SigV4-signed request; good for five minutes, as often as one likes."""
    text = json.dumps(body)
    request = AWSRequest(
        "POST", url + "/", data=text, headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    )
    SigV4Auth(Credentials(key_id, secret), service, "us-east-1").add_auth(request)
    return dict(request.headers.items()), text


def wrk(
    url: str, headers: Json, body: str, *, seconds: int = 8, connections: int = 64, pause_ms: int | None = None
) -> Json:
    """Send one request over and over with wrk; `pause_ms` between two on a connection paces it.

    Returns requests per second, latency percentiles in milliseconds, and how many answers were not 2xx or 3xx.
    """
    install_debian_package("wrk", "wrk")
    lines = ["wrk.method = 'POST'", f"wrk.body = {_lua(body)}"]
    lines += [f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in headers.items()]
    if pause_ms is not None:
        lines.append(f"function delay() return math.random(0, {2 * pause_ms}) end")
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "request.lua"
        script.write_text("\n".join(lines))
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
        command = ["wrk", *options, "-s", str(script), url + "/"]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    return _parse_wrk(out)


def _lua(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parse_wrk(out: str) -> Json:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert rate, out
    latency = {
        f"p{percent}_ms": round(float(value) * _SECONDS[unit] * 1000, 2)
        for percent, value, unit in re.findall(r"\s(50|99)%\s+([\d.]+)(us|ms|s|m)", out)
    }
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return {"per_second": round(float(rate[1]), 1), **latency, "failed": int(failed[1]) if failed else 0}
