"""Homeport beside its peers in one run: the Engine's own limit, Docker Swarm, moto. docs/peers.md says how."""
