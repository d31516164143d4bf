"""The vectorized twin: runs an integer network exactly, on whole test sets or step by step."""

from targets.integer.run import Stream, step
from targets.integer.target import IntegerTarget

__all__ = ["IntegerTarget", "Stream", "step"]
