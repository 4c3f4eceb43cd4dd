"""Real processes, real Engines, kill -9."""
