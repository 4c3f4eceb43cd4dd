"""The agent: the daemon on each host that runs what the control plane assigns. See docs/architecture.md."""

import homeport.plain_structlog  # noqa: F401  # before any module of ours imports structlog
