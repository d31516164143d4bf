"""Errors, validation, file format, Legendre mathematics, representations, float reference.

The lowest layer: it imports only NumPy, SciPy, safetensors and the standard library.
"""
