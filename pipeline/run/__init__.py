"""Running a stage over a workspace, and what became of every row."""
