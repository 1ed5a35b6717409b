"""The steps that lead from one version of the studio's database to the next, run by Alembic.

Each file is one step and one transaction. Steps are frozen once released: they spell out what they make and import
nothing of keel that could change.
"""

REVISIONS = ("0001", "0002")
"""Oldest first; the last is the version this keel reads and writes."""
