"""The control plane's own certificate authority, so that TLS works without anybody's certificate.

What always holds:
 - the CA is made once, on the first start, and never replaced by itself: hosts pin it by its hash when they join;
 - the server's certificate is made anew when two thirds of its life are over or the names it is to stand for change;
 - both keys are ECDSA P-256, which every TLS library in use verifies; files are private (0600), except certificates.
"""

import asyncio
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from homeport.clock import Clock
from homeport.daemon import write_private
from homeport.datadir import ControlPlaneDir
from homeport.errors import ConfigurationError

__all__ = ["CA_LIFE", "SERVER_LIFE", "Authority", "ca_hash"]

_log: Final = structlog.get_logger(__name__)

CA_LIFE: Final = timedelta(days=3650)
SERVER_LIFE: Final = timedelta(days=90)
#: The part of the server certificate's life after which it is renewed.
RENEW_AFTER: Final = 2 / 3
#: Certificates are valid from this long before they are made, for clients whose clocks are behind.
BACKDATED: Final = timedelta(hours=24)
#: How often a running control plane looks whether a renewal is due.
RENEWAL_CHECK_S: Final = 3600.0


class Authority:
    """The opened PKI: what the server needs to speak TLS, and what clients need to trust it. Made by `open`."""

    _root: "_Root"

    def __init__(self, directory: ControlPlaneDir, names: Iterable[str], clock: Clock) -> None:
        self._directory = directory
        self._names = _subject_names(names)
        self._clock = clock
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    @classmethod
    def open(cls, directory: ControlPlaneDir, *, names: Iterable[str], clock: Clock) -> "Authority":
        """Read or make the CA and a server certificate that stands for `names` (host names and IP addresses).

        Raises ConfigurationError if the files are there and can't be used: a new CA would lock out every host that
        has joined.
        """
        authority = cls(directory, names, clock)
        authority._root = _open_root(directory, authority._now())
        authority.renew()
        return authority

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate, as PEM."""
        return self._root.certificate.public_bytes(serialization.Encoding.PEM)

    def ca_hash(self) -> str:
        """Return "sha256:HEX" of the CA certificate's DER: what `homeport-agent join --ca-hash` pins."""
        return ca_hash(self._root.certificate)

    def server_context(self) -> ssl.SSLContext:
        """Return the one context for servers: TLS 1.2 or later, with the certificate; a renewal changes it in place."""
        return self._context

    def renew(self) -> bool:
        """Make a new server certificate if one is due, and present it to connections to come. Tell whether it was."""
        now = self._now()
        server = _read_server(self._directory)
        due = server is None or not _serves(server, self._names, self._root, now)
        if due:
            _make_server(self._directory, self._root, self._names, now)
        self._context.load_cert_chain(self._directory.server_certificate, self._directory.server_key)
        return due

    async def keep_renewed(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            await asyncio.sleep(RENEWAL_CHECK_S)
            if await asyncio.to_thread(self.renew):
                _log.info("server certificate renewed", ca_hash=self.ca_hash())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


def ca_hash(certificate: x509.Certificate) -> str:
    """Return "sha256:HEX" over the certificate's DER."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


class _Root(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _open_root(directory: ControlPlaneDir, now: datetime) -> _Root:
    certificate_there, key_there = directory.ca_certificate.exists(), directory.ca_key.exists()
    if not certificate_there:
        # The key is written first: a certificate means that both are there. A key alone is of an interrupted start.
        return _make_root(directory, now)
    if not key_there:
        raise ConfigurationError(
            f"{directory.ca_certificate} is there but its key {directory.ca_key} is not: restore the key from a "
            "backup, or delete both, after which every host has to join again"
        )
    try:
        certificate = x509.load_pem_x509_certificate(directory.ca_certificate.read_bytes())
        key = serialization.load_pem_private_key(directory.ca_key.read_bytes(), None)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigurationError(f"the CA in {directory.root} can't be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(f"{directory.ca_key} is not the key of {directory.ca_certificate}")
    return _Root(certificate, key)


def _make_root(directory: ControlPlaneDir, now: datetime) -> _Root:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Homeport CA")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(key_id, critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(directory.ca_key, _key_pem(key))
    write_private(directory.ca_certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return _Root(certificate, key)


def _make_server(
    directory: ControlPlaneDir, root: _Root, names: list[x509.GeneralName], now: datetime
) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Homeport control plane")])
    certificate = (
        _builder(subject, root.certificate.subject, key.public_key(), now, SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False)
        .sign(root.key, hashes.SHA256())
    )
    # One file holds both, so that they can't be of two different generations after a crash.
    pem = _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)
    write_private(directory.server_key, pem)
    write_private(directory.server_certificate, pem)
    return certificate


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject_names(names: Iterable[str]) -> list[x509.GeneralName]:
    wanted: list[x509.GeneralName] = []
    for name in sorted(set(names)):
        address = _address(name)
        wanted.append(x509.DNSName(name) if address is None else x509.IPAddress(address))
    return wanted


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _read_server(directory: ControlPlaneDir) -> x509.Certificate | None:
    """Return the server's certificate; None if it isn't there or can't be used, since a new one does no harm."""
    try:
        certificate = x509.load_pem_x509_certificate(directory.server_certificate.read_bytes())
        key = serialization.load_pem_private_key(directory.server_key.read_bytes(), None)
    except (ValueError, TypeError, OSError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _serves(certificate: x509.Certificate, wanted: list[x509.GeneralName], root: _Root, now: datetime) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    due = certificate.not_valid_before_utc + life * RENEW_AFTER
    if not certificate.not_valid_before_utc <= now < due:
        return False
    try:
        certificate.verify_directly_issued_by(root.certificate)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # noqa: BLE001 - whatever is wrong with it, a new one is made
        return False
    return list(names) == wanted
