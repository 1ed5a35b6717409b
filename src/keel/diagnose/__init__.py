"""A finished run read from its log, whoever trained it, and what a doctor would say of it. No torch."""
