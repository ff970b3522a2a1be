"""Freezing tables into a release."""
