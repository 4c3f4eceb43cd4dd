import pytest

from controlplane.config import Listener, check_access_key_id, check_account, check_region, parse_listener
from homeport.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "insecure", "expected"),
    [
        ("127.0.0.1:6180", False, Listener(scheme="http", host="127.0.0.1", port=6180)),
        ("localhost:0", False, Listener(scheme="http", host="localhost", port=0)),
        ("[::1]:80", False, Listener(scheme="http", host="::1", port=80)),
        ("0.0.0.0:6181", False, Listener(scheme="https", host="0.0.0.0", port=6181)),
        ("0.0.0.0:6181", True, Listener(scheme="http", host="0.0.0.0", port=6181)),
        ("https://127.0.0.1:1", False, Listener(scheme="https", host="127.0.0.1", port=1)),
        ("http://10.0.0.1:1", False, Listener(scheme="http", host="10.0.0.1", port=1)),
        ("https://10.0.0.1:1", True, Listener(scheme="https", host="10.0.0.1", port=1)),
    ],
)
def test_plain_http_is_only_for_loopback_or_when_asked_for_by_name(
    text: str, insecure: bool, expected: Listener
) -> None:
    assert parse_listener(text, insecure_http=insecure) == expected


@pytest.mark.parametrize(
    "text", ["", "6180", "host", ":6180", "host:", "host:70000", "host:x", "ftp://h:1", "http://h:1/x"]
)
def test_a_listener_that_cannot_be_used_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--listen"):
        parse_listener(text)


def test_names_that_cannot_stand_in_an_arn_are_refused() -> None:
    assert check_region("eu-central-1") == "eu-central-1"
    assert check_account("000000000000") == "000000000000"
    for bad in ("", "EU", "a:b", "-a", "a" * 64):
        with pytest.raises(ConfigurationError, match="region"):
            check_region(bad)
    for bad in ("", "1", "12345678901a", "1234567890123"):
        with pytest.raises(ConfigurationError, match="12 digits"):
            check_account(bad)
    with pytest.raises(ConfigurationError, match="access key"):
        check_access_key_id("short")
