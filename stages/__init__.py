"""One module per verb of the pipeline; each joins by a line in ``pipeline.flow``."""
