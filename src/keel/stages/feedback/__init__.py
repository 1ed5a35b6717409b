"""Judgments and revisions by models: RLAIF and Constitutional AI."""
