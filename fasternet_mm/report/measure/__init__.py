"""Measuring: from a config or a name to a report."""
