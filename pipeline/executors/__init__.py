"""Where units run. Every executor calls ``pipeline.unit.run_unit``."""
