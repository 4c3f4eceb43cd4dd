"""A whole cluster in one process, on virtual time, from a seed: what happens to it, and what must hold all the same."""
