"""The only room that knows the container engine: `api` (the seam), `errors`, and the Docker implementation."""
