"""What the hot paths cost in instructions, recorded in bench/hotpaths.json: `make hotpaths`."""
