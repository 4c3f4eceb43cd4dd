"""Where a task should run: filters that explain themselves, strategies, and the pure `place`."""
