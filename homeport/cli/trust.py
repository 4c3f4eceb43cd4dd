"""Getting a control plane's CA certificate over the network, trusted by its hash and not by the connection."""

import hashlib
import ssl
import urllib.request
from typing import Final

from homeport.cli.errors import CannotConnect, CliError
from homeport.protocol import PATH_CA

__all__ = ["fetch_ca"]

_TIMEOUT_S: Final = 10
_MAX_BYTES: Final = 64 * 1024


def fetch_ca(endpoint: str, ca_hash: str) -> bytes:
    """Return the PEM certificate of the control plane at `endpoint` if its DER has the SHA-256 `ca_hash`.

    Raises CliError if it hasn't, CannotConnect if it can't be fetched.
    """
    # Whoever answers proves nothing by its TLS certificate here; the hash alone decides.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(endpoint.rstrip("/") + PATH_CA, timeout=_TIMEOUT_S) as answer:
            pem = bytes(answer.read(_MAX_BYTES))
    except OSError as error:
        raise CannotConnect(f"The CA certificate can't be fetched from {endpoint}: {error}") from error
    try:
        found = "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))).hexdigest()
    except ValueError as error:
        raise CliError(f"{endpoint} doesn't answer with a CA certificate; is it a Homeport control plane?") from error
    if found != ca_hash.lower():
        raise CliError(
            f"The CA certificate at {endpoint} has the hash {found}, not {ca_hash}: that isn't the one you mean.",
            hint="`homeport status` on the control plane's machine shows the right one.",
        )
    return pem
