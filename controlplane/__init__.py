"""The control plane: the daemon that decides. See docs/architecture.md for its rooms."""

import homeport.plain_structlog  # noqa: F401  # before any module of ours imports structlog
