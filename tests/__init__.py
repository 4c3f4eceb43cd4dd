"""Tests; see docs/architecture.md for the ladder."""
