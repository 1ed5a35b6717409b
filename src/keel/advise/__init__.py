"""Which method suits hardware, data, judges and goal, and why. No torch."""
