"""At which address Prometheus reaches an agent."""

import pytest

from controlplane.targets import reachable_address


@pytest.mark.parametrize(
    ("told", "session", "reached"),
    [
        ("10.0.0.3:9100", "10.0.0.9", "10.0.0.3:9100"),
        ("node3:9100", "", "node3:9100"),
        ("0.0.0.0:9100", "10.0.0.9", "10.0.0.9:9100"),
        ("0.0.0.0:9100", "::ffff:10.0.0.9", "10.0.0.9:9100"),
        ("[::]:9100", "fd00::9", "[fd00::9]:9100"),
        (":9100", "10.0.0.9", "10.0.0.9:9100"),
        ("0.0.0.0:9100", "127.0.0.1", "cp.example:9100"),
        ("0.0.0.0:9100", "", None),
        ("127.0.0.1:9100", "127.0.0.1", "127.0.0.1:9100"),
        ("127.0.0.1:9100", "10.0.0.9", None),
        ("localhost:9100", "", None),
        ("", "10.0.0.9", None),
        ("nonsense", "10.0.0.9", None),
    ],
)
def test_the_address_to_scrape(told: str, session: str, reached: str | None) -> None:
    assert reachable_address(told, session_address=session, own_host="cp.example") == reached
