"""What is saved: the format, foreign states, reconciliation and its report."""
