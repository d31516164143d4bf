"""Bit-exact simulator of integer networks, for whole test sets or step by step."""

from targets.integer.run import Stream, finish, step
from targets.integer.target import IntegerTarget

__all__ = ["IntegerTarget", "Stream", "finish", "step"]
