"""Legendre Memory Units on neuromorphic hardware, and proof of what survived the trip."""
