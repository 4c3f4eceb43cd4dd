"""Logs: where container output is kept and how it is searched."""
