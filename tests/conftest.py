"""What holds for all tests: Hypothesis judges what the code does, never how long a busy machine takes for it."""

from hypothesis import HealthCheck, settings

settings.register_profile("homeport", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("homeport")
