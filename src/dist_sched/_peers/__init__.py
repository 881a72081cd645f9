"""Schedules in the words of other libraries, read into ours. No torch."""
