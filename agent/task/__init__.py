"""One task's life on its host: a pure `step(task, facts) -> actions`, and the thin runner that acts."""
