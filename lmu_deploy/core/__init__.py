"""Errors, file format, Legendre mathematics, the representations, and the float reference."""
