"""Configs: entries, specifications, policy, history, files."""
