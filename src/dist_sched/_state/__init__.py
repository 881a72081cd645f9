"""Checkpoint state: the format, foreign states, reconciliation and its report."""
