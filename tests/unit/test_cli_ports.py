import socket

import pytest

from homeport.cli.errors import CliError
from homeport.cli.ports import free_port, is_free


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(CliError, match=f"No port from {port} to {port} is free"):
            free_port(range(port, port + 1))
    assert free_port(range(port, port + 1)) == port
