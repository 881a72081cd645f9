"""What is declared: entries, specifications, policy, history, files."""
