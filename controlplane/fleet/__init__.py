"""The agents' side door: registration, sessions, assignments down, reports up, liveness."""
