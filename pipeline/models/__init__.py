"""Weights: which there are, which are here, and reading them safely."""

from pipeline.models.register import ModelFile, require
from pipeline.models.tensors import check_state_dict, load_state_dict

__all__ = ["ModelFile", "check_state_dict", "load_state_dict", "require"]
