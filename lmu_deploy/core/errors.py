"""Exceptions; each message names the object, the value, the limit and what to do."""

from __future__ import annotations


class LmuDeployError(Exception):
    """Base class of all errors; the command line prints the message without a traceback."""

    exit_code = 1


class InputError(LmuDeployError):
    """A file, value, name or combination of options is invalid (exit code 2)."""

    exit_code = 2


class MissingDependencyError(InputError):
    """An optional library is missing or broken; the message has the command that installs it."""


class RunError(LmuDeployError):
    """A target or a training run failed (exit code 1)."""
