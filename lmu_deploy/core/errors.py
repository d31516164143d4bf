"""Errors that a user meets: one sentence with the object, the value, the limit and what to do."""

from __future__ import annotations


class LmuDeployError(Exception):
    """Base of every error that the command line shows as one sentence, without a traceback."""

    exit_code = 1


class InputError(LmuDeployError):
    """What was asked for cannot be done: a bad file, value, name or combination (exit code 2)."""

    exit_code = 2


class MissingDependencyError(InputError):
    """An optional library is absent or broken; the message names the command that mends it."""


class RunError(LmuDeployError):
    """A target or a training failed while it ran (exit code 1)."""
