"""The Docker engine seam against a real Engine."""
