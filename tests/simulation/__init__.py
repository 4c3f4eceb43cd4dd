"""A whole cluster in one process, on virtual time, from a seed, with faults: `make simulate`. See docs/reliability.md."""
