"""Services: keep what was asked for running. `decide` is pure, `loop` looks and acts."""
