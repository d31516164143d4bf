"""Bit-exact simulator of integer networks, for whole test sets or step by step."""

from targets.integer.run import IntegerTarget, Stream, finish, step

__all__ = ["IntegerTarget", "Stream", "finish", "step"]
