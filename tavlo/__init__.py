"""TAVLO and the evaluation of any model on a release."""
