"""What both daemons share: the ECS vocabulary, the agent protocol, ARNs, errors, units.

Nothing here does I/O, aside from two named rooms: `homeport.cli`, the command line, and `homeport.daemon`, the
process shell (logging, signals, systemd notification, private files) that both daemons wear.
"""

__version__ = "0.1.0"
