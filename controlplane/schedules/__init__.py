"""Schedules: run tasks when EventBridge's schedules and rules say so. `decide` is pure, `loop` looks and acts."""
