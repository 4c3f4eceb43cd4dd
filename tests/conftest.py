"""What holds for all tests: Hypothesis judges what the code does, never how long that takes on a machine that is busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("homeport", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("homeport")
