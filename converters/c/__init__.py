"""Generate dependency-free C99 of an integer network, bit-exact with the specification."""

from converters.c.generator import Source, generate

__all__ = ["Source", "generate"]
