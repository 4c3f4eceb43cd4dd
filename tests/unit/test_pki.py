"""The control plane's own CA: made once, server certificates renewed, files private."""

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.pki import Authority
from homeport.datadir import ControlPlaneDir
from homeport.errors import ConfigurationError
from tests.fakes.clock import ManualClock

NOW = 1_800_000_000.0
DAY_S = 86_400.0
NAMES = ("localhost", "127.0.0.1", "::1", "control.example")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def directory(tmp_path: Path) -> ControlPlaneDir:
    return ControlPlaneDir(tmp_path)


def server_certificate(directory: ControlPlaneDir) -> x509.Certificate:
    return x509.load_pem_x509_certificate(directory.server_certificate.read_bytes())


def test_the_ca_is_made_once_and_lasts_ten_years(directory: ControlPlaneDir, clock: ManualClock) -> None:
    first = Authority.open(directory, names=NAMES, clock=clock)
    certificate = x509.load_pem_x509_certificate(first.ca_pem)
    assert certificate.not_valid_after_utc == datetime.fromtimestamp(NOW + 3650 * DAY_S, UTC)
    clock.time += 1000 * DAY_S
    again = Authority.open(directory, names=("other",), clock=clock)
    assert (again.ca_hash(), again.ca_pem) == (first.ca_hash(), first.ca_pem)
    assert first.ca_hash().startswith("sha256:")
    assert len(first.ca_hash()) == 7 + 64


def test_keys_are_private(directory: ControlPlaneDir, clock: ManualClock) -> None:
    Authority.open(directory, names=NAMES, clock=clock)
    for path in (directory.ca_key, directory.server_key, directory.server_certificate):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.ca_certificate.stat().st_mode) == 0o644
    assert b"PRIVATE" not in directory.ca_certificate.read_bytes()


def test_the_server_certificate_stands_for_its_names(directory: ControlPlaneDir, clock: ManualClock) -> None:
    Authority.open(directory, names=NAMES, clock=clock)
    certificate = server_certificate(directory)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "control.example"}
    assert {str(address) for address in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    assert certificate.not_valid_after_utc == datetime.fromtimestamp(NOW + 90 * DAY_S, UTC)


def test_it_is_renewed_after_two_thirds_of_its_life(directory: ControlPlaneDir, clock: ManualClock) -> None:
    authority = Authority.open(directory, names=NAMES, clock=clock)
    first = server_certificate(directory)
    clock.time = NOW + 59 * DAY_S
    assert not authority.renew()
    assert server_certificate(directory) == first
    clock.time = NOW + 61 * DAY_S
    assert authority.renew()
    assert server_certificate(directory).not_valid_after_utc > first.not_valid_after_utc


def test_it_is_made_anew_when_names_change_or_files_are_damaged(directory: ControlPlaneDir, clock: ManualClock) -> None:
    Authority.open(directory, names=NAMES, clock=clock)
    first = server_certificate(directory)
    Authority.open(directory, names=reversed(NAMES), clock=clock)
    assert server_certificate(directory) == first
    Authority.open(directory, names=(*NAMES, "10.0.0.1"), clock=clock)
    second = server_certificate(directory)
    assert second != first
    directory.server_key.write_bytes(b"torn")
    Authority.open(directory, names=(*NAMES, "10.0.0.1"), clock=clock)
    assert server_certificate(directory) != second


def test_a_damaged_ca_is_never_replaced(directory: ControlPlaneDir, clock: ManualClock) -> None:
    Authority.open(directory, names=NAMES, clock=clock)
    key = directory.ca_key.read_bytes()
    directory.ca_key.unlink()
    with pytest.raises(ConfigurationError, match="restore the key"):
        Authority.open(directory, names=NAMES, clock=clock)
    directory.ca_key.write_bytes(b"torn")
    with pytest.raises(ConfigurationError, match="can't be read"):
        Authority.open(directory, names=NAMES, clock=clock)
    directory.ca_key.write_bytes(directory.server_key.read_bytes())
    with pytest.raises(ConfigurationError, match="is not the key"):
        Authority.open(directory, names=NAMES, clock=clock)
    directory.ca_key.write_bytes(key)
    Authority.open(directory, names=NAMES, clock=clock)


def test_a_start_that_broke_off_is_begun_anew(directory: ControlPlaneDir, clock: ManualClock) -> None:
    Authority.open(directory, names=NAMES, clock=clock)
    directory.ca_certificate.unlink()
    authority = Authority.open(directory, names=NAMES, clock=clock)
    server_certificate(directory).verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem))


def test_the_context_wants_tls_1_2(directory: ControlPlaneDir, clock: ManualClock) -> None:
    context = Authority.open(directory, names=NAMES, clock=clock).server_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
