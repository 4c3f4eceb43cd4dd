"""The layout of a data directory, and the two files in it that the daemons write and the CLI reads.

    DIR/controlplane/  state.db  credentials.json  endpoint.json  ca.pem ca.key server.pem server.key  logs/
                       logs/
    DIR/agent/         agent.db  identity.json  ca.pem  contact  unshipped.json

Only names and shapes; reading and writing is the caller's.
"""

from pathlib import Path

import msgspec

__all__ = ["AgentDir", "ControlPlaneDir", "CredentialsFile", "EndpointFile"]


class CredentialsFile(msgspec.Struct, frozen=True, kw_only=True):
    """`credentials.json`, mode 0600: the first access key. More can come later as records."""

    access_key_id: str
    secret_access_key: str


class EndpointFile(msgspec.Struct, frozen=True, kw_only=True):
    """`endpoint.json`: where the control plane of this directory listens, written once it is ready."""

    local_url: str
    network_url: str | None
    region: str
    account: str
    #: Path of the CA certificate, if `local_url` is https.
    ca_bundle: str | None
    ca_hash: str | None
    pid: int


class ControlPlaneDir:
    """Paths of the control plane's files below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / "controlplane"
        self.database = self.root / "state.db"
        self.credentials = self.root / "credentials.json"
        self.endpoint = self.root / "endpoint.json"
        self.ca_certificate = self.root / "ca.pem"
        self.ca_key = self.root / "ca.key"
        self.server_certificate = self.root / "server.pem"
        self.server_key = self.root / "server.key"
        self.logs = self.root / "logs"
        self.logs = self.root / "logs"


class AgentDir:
    """Paths of the agent's files below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir / "agent"
        self.database = self.root / "agent.db"
        self.identity = self.root / "identity.json"
        self.ca_certificate = self.root / "ca.pem"
        self.contact = self.root / "contact"
        self.unshipped = self.root / "unshipped.json"
