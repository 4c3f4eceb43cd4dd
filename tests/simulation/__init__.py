"""A whole cluster in one process, on virtual time, with faults, from a seed: `make simulate`, docs/reliability.md."""
