"""Settings for laws over random inputs on a machine that others use at the same time."""

from hypothesis import HealthCheck, settings

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
