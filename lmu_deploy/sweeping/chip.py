"""A chip profile with some of its figures replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmu_deploy.errors import InputError
from lmu_deploy.hardware.profile import Figure, Profile, load_profile

_SOURCE = "assumed: set by the sweep"


def chosen_profile(chip: Mapping[str, Any], kind: str, usual: str) -> Profile:
    """Load the profile that `chip` names, with the other entries of `chip` in place of its own.

    Parameters
    ----------
    chip : mapping
        ``profile``, and figures' values by name.
    kind : {"digital", "analog"}
    usual : str
        The profile where `chip` names none.

    Raises
    ------
    InputError
        When there is no such profile of that kind, or it has no such figure.
    """
    profile = load_profile(str(chip.get("profile", usual)), kind)
    figures = {}
    for name, value in chip.items():
        if name == "profile":
            continue
        if not isinstance(getattr(profile, name, None), Figure):
            raise InputError(f"chip.{name} is no figure of profile {profile.name}, a {kind} chip.")
        if isinstance(value, bool | str):
            raise InputError(f"chip.{name} is {value!r}; give a number.")
        figures[name] = Figure(value=value, source=_SOURCE)
    return profile.model_copy(update=figures)
