"""The command line, `homeport`."""
