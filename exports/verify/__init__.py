"""Checking a release from outside."""
