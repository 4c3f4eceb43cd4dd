"""Reading containers' logs for people: of a task or of all tasks of a service, from the store or from the hosts."""
