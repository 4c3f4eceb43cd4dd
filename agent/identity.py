"""Who this host is to the control plane: its key pair, made here and never sent, and the instance it registered as.

`join` is what `homeport-agent join` does. It may be repeated: the key in the data directory is kept, and the control
plane answers a key that it knows with the same instance.
"""

import base64
import ipaddress
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from homeport.clock import Clock, SystemClock
from homeport.daemon import write_private
from homeport.datadir import AgentDir
from homeport.errors import ConfigurationError
from homeport.ids import InstanceId
from homeport.protocol import PATH_CA, PATH_REGISTER, HostFacts, Refusal, Registered, Registration, signed_hello

__all__ = ["Identity", "JoinError", "join", "load_identity", "tls_context"]

#: Seconds for one request while joining, connecting included.
REQUEST_TIMEOUT_S: Final = 30.0
#: A CA certificate or an answer is far smaller.
MAX_ANSWER_BYTES: Final = 256 * 1024
#: Clocks further apart than this are named as the likely cause of a failed verification.
CLOCK_SKEW_S: Final = 300.0


class JoinError(ConfigurationError):
    """The host can't join. The text is one or two sentences for the operator: what is wrong and what to do."""


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`identity.json`, mode 0600. `instance_id` is "" until the host has joined."""

    #: Raw Ed25519 key, base64.
    private_key: str
    instance_id: InstanceId = InstanceId("")
    instance_arn: str = ""
    cluster: str = ""
    #: Base URLs of the control plane, tried in turn.
    servers: tuple[str, ...] = ()
    #: The pinned CA's certificate (PEM); "" if the server's certificate is trusted by this machine, or without TLS.
    ca_pem: str = ""

    @classmethod
    def new(cls) -> "Identity":
        """Make a key pair."""
        return cls(private_key=base64.b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode())

    @property
    def public_key(self) -> str:
        """The raw public key, base64."""
        return base64.b64encode(self._key().public_key().public_bytes_raw()).decode()

    def sign_hello(self, nonce: str) -> str:
        """Return the signature that opens a session, base64."""
        return base64.b64encode(self._key().sign(signed_hello(nonce, self.instance_id))).decode()

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(self.private_key))


def load_identity(directory: AgentDir) -> Identity | None:
    """Read the identity of a host that has joined; None if it hasn't.

    Raises ConfigurationError if the file is there and can't be used.
    """
    identity = _read(directory)
    return identity if identity is not None and identity.instance_id else None


async def join(
    server: str,
    activation_id: str,
    code: str,
    ca_hash: str | None,
    facts: HostFacts,
    directory: AgentDir,
    *,
    cluster: str = "",
    allow_plain_http: bool = False,
    clock: Clock | None = None,
) -> Identity:
    """Register this host with the control plane at `server` (a base URL) and keep the identity in `directory`.

    `ca_hash`: "sha256:HEX" of the control plane's CA certificate; with it nothing else is trusted, without it the
    server's certificate must be one that this machine trusts. Plain http is used only to this machine itself, or with
    `allow_plain_http`. Raises JoinError; then, and on cancel, the host may simply join again.
    """
    server = _checked_url(server, ca_hash, allow_plain_http)
    identity = _read(directory) or Identity.new()
    # The key is on disk before it is registered: an answer that gets lost doesn't leave an instance without its key.
    _write(directory, identity)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        ca_pem = await _fetch_pinned_ca(http, server, ca_hash) if ca_hash else ""
        registration = Registration(
            activation_id=activation_id,
            activation_code=code,
            public_key=identity.public_key,
            facts=facts,
            cluster=cluster,
        )
        tls = tls_context(server, ca_pem)
        registered = await _register(http, server, tls, registration, clock or SystemClock())
    identity = msgspec.structs.replace(
        identity,
        instance_id=registered.instance_id,
        instance_arn=registered.instance_arn,
        cluster=registered.cluster,
        servers=(server,),
        ca_pem=ca_pem,
    )
    _write(directory, identity)
    return identity


def tls_context(server: str, ca_pem: str) -> ssl.SSLContext | bool:
    """Return what to verify `server` with: the pinned CA alone, or (without one) what this machine trusts."""
    if not ca_pem or urlsplit(server).scheme != "https":
        return True
    context = ssl.create_default_context(cadata=ca_pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


# ---------------------------------------------------------------- files


def _read(directory: AgentDir) -> Identity | None:
    try:
        content = directory.identity.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{directory.identity} can't be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=Identity)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{directory.identity} is damaged ({error}): restore it, or remove it and join again as a new host"
        ) from error


def _write(directory: AgentDir, identity: Identity) -> None:
    try:
        write_private(directory.identity, msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
        if identity.ca_pem:
            write_private(directory.ca_certificate, identity.ca_pem.encode(), mode=0o644)
    except OSError as error:
        raise ConfigurationError(f"{directory.identity} can't be written: {error.strerror}") from error


# ---------------------------------------------------------------- requests


def _checked_url(server: str, ca_hash: str | None, allow_plain_http: bool) -> str:
    try:
        parts = urlsplit(server)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise JoinError(f"--server {server} is not a URL: {error}.") from error
    if parts.scheme not in ("http", "https") or not host:
        raise JoinError(f"--server must be a URL like https://HOST:PORT, not {server!r}.")
    if parts.scheme == "http":
        if ca_hash:
            raise JoinError("--ca-hash pins the certificate of an https:// server, but --server is http://.")
        if not allow_plain_http and not _is_loopback(host):
            raise JoinError(
                f"Plain http to {host} would let anyone on the way read the activation and take over tasks. Use the "
                "control plane's https:// URL, or allow plain http by name with --allow-plain-http."
            )
    if ca_hash and not _is_ca_hash(ca_hash):
        raise JoinError("--ca-hash must be sha256: and 64 hex digits, as `homeport add-node` prints it.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ca_hash(text: str) -> bool:
    algorithm, _, digest = text.partition(":")
    return algorithm == "sha256" and len(digest) == 64 and set(digest.lower()) <= set("0123456789abcdef")


async def _fetch_pinned_ca(http: aiohttp.ClientSession, server: str, ca_hash: str) -> str:
    """Fetch the CA certificate from a server that isn't trusted yet; return it only if it is the pinned one."""
    # Needed while joining only; a running agent saves its memory.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    try:
        async with http.get(server + PATH_CA, ssl=False, allow_redirects=False) as response:
            status, body = response.status, await _bounded_body(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise JoinError(_cannot_connect(server, error)) from error
    if status != 200:
        raise JoinError(f"{server} gives no CA certificate (HTTP {status}). Is it a Homeport control plane?")
    try:
        certificate = x509.load_pem_x509_certificate(body)
    except ValueError as error:
        raise JoinError(f"{server} does not answer with a CA certificate. Is it a Homeport control plane?") from error
    found = f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"
    if found != ca_hash.lower():
        raise JoinError(
            f"The CA of {server} has the hash {found}, not the expected {ca_hash.lower()}. Either this is another "
            "control plane than the command was made for, or someone is in between. Nothing was sent."
        )
    return body.decode()


async def _register(
    http: aiohttp.ClientSession, server: str, tls: ssl.SSLContext | bool, registration: Registration, clock: Clock
) -> Registered:
    body = msgspec.json.encode(registration)
    headers = {"Content-Type": "application/json"}
    url = server + PATH_REGISTER
    try:
        async with http.post(url, data=body, headers=headers, ssl=tls, allow_redirects=False) as response:
            status, answer = response.status, await _bounded_body(response)
            date = response.headers.get("Date")
    except aiohttp.ClientConnectorCertificateError as error:
        raise JoinError(_untrusted(server, error, clock, pinned=isinstance(tls, ssl.SSLContext))) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise JoinError(_cannot_connect(server, error)) from error
    try:
        if status == 200:
            return msgspec.json.decode(answer, type=Registered)
        refusal = msgspec.json.decode(answer, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise JoinError(f"{server} answered HTTP {status}, but not as a Homeport control plane does.") from error
    raise JoinError(refusal.message + (_clock_hint(date, clock) if refusal.code == "ActivationExpired" else ""))


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise JoinError(f"{response.url.origin()} answers with more than {MAX_ANSWER_BYTES} bytes.")
    return bytes(body)


def _cannot_connect(server: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{server} did not answer within {REQUEST_TIMEOUT_S:.0f} s. Check the address, and firewalls on the way."
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"{server} does not speak TLS as expected ({error}). Is it an http:// address?"
    return f"Cannot connect to {server}: {error}. Check the address, and that the control plane is running."


def _untrusted(server: str, error: aiohttp.ClientConnectorCertificateError, clock: Clock, *, pinned: bool) -> str:
    cause = error.certificate_error
    text = getattr(cause, "verify_message", "") or str(cause)
    if "expired" in text or "not yet valid" in text:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock.now()))
        return f"The certificate of {server} is not valid now ({text}). This machine's clock says {now}: is it right?"
    if pinned:
        return (
            f"The certificate of {server} can't be verified with the pinned CA: {text}. If this machine reaches the "
            "control plane under a name or address of its own, start the control plane with that as its advertised "
            "host."
        )
    return (
        f"The certificate of {server} is not trusted by this machine: {text}. Give the control plane's own CA with "
        "--ca-hash, as `homeport add-node` prints it."
    )


def _clock_hint(date: str | None, clock: Clock) -> str:
    """Add what may explain an expiry: that the clocks are apart."""
    try:
        skew_s = clock.now() - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return ""
    if abs(skew_s) < CLOCK_SKEW_S:
        return ""
    return f" (The clocks of this machine and of the control plane are {abs(skew_s):.0f} s apart.)"
