"""Chaos on real parts: `python -m tests.chaos --minutes N --seed S`; docs/reliability.md says what it does."""
