"""The decision about one service: pure, from a snapshot to actions. `decide` is the way in."""
