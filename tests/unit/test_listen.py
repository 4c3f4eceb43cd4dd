import socket
import ssl
import struct
from pathlib import Path

import pytest
from aiohttp import web

from controlplane.config import Listener
from controlplane.listen import BACKLOG, bind, endpoints_of, local_names, site_of
from homeport.errors import ConfigurationError


def _listener(host: str, scheme: str = "http", port: int = 0) -> Listener:
    return Listener(scheme="https" if scheme == "https" else "http", host=host, port=port)


def test_a_taken_port_is_named_and_nothing_stays_bound() -> None:
    (first,) = bind([_listener("127.0.0.1")])
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{first.port}"):
        bind([_listener("127.0.0.1"), _listener("127.0.0.1", port=first.port)])
    first.socket.close()


def test_local_clients_get_the_loopback_url_and_other_hosts_the_network_url() -> None:
    bound = bind([_listener("127.0.0.1"), _listener("0.0.0.0", "https")])
    endpoints = endpoints_of(bound, advertise_host="cp.example", ca_hash="sha256:00")
    assert endpoints.local_url == f"http://127.0.0.1:{bound[0].port}"
    assert endpoints.network_url == f"https://cp.example:{bound[1].port}"
    assert endpoints.ca_hash == "sha256:00"
    for each in bound:
        each.socket.close()


def test_on_loopback_alone_there_is_no_network_url_and_no_ca() -> None:
    (bound,) = bind([_listener("127.0.0.1")])
    endpoints = endpoints_of([bound], advertise_host=None, ca_hash="sha256:00")
    assert (endpoints.network_url, endpoints.ca_hash) == (None, None)
    bound.socket.close()


def test_the_certificate_covers_every_local_name() -> None:
    assert {"localhost", "127.0.0.1", "cp.example"} <= set(local_names("cp.example"))


async def test_a_whole_fleet_may_wait_to_be_accepted_once_requests_are_served() -> None:
    (bound,) = bind([_listener("127.0.0.1")])
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await site_of(bound, runner, ssl.create_default_context()).start()
        # Of a listening socket Linux tells the backlog where others tell what was acknowledged out of order.
        info = bound.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (backlog,) = struct.unpack_from("I", info, 28)
        assert backlog == min(BACKLOG, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    finally:
        await runner.cleanup()
