"""Tasks that no service owns: how long they may run, how often they are run again, and which must not run together."""
