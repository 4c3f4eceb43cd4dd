"""The control plane: the daemon that decides. See docs/architecture.md for its rooms."""
