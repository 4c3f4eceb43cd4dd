"""The durable journal behind a narrow Protocol: what was committed is still true after kill -9."""
