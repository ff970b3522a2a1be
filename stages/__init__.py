"""The stages of the pipeline; each joins by a line in ``pipeline.flow``."""
