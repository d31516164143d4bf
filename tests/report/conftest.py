"""Fixtures of validations, which the tests of figures and of reports share."""

from validations import (
    assembled,
    cases,
    digits,
    edge_cases,
    folder_of,
    reported,
    signal,
)

__all__ = ["assembled", "cases", "digits", "edge_cases", "folder_of", "reported", "signal"]
