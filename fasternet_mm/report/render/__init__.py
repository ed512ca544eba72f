"""Showing a report: in the terminal, as markdown, csv and pictures; nothing is measured here."""
