"""Decisions of people: the pages they work on, their reviews, and what follows from those."""
