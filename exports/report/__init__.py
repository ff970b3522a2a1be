"""The report: one page that tells a stranger what a run did."""
