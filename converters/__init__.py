"""Converters between representations of a trained LMU, and to and from files of other programs."""
