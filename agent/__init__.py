"""The agent: the daemon on each host that runs what the control plane assigns. See docs/architecture.md."""
