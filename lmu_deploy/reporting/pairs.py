"""Settings as names and values that stand beside each other, however deep they were nested."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lmu_deploy.reporting.wording import setting

Pairs = list[tuple[str, str]]


def pairs(settings: Mapping[str, Any], path: str = "") -> Pairs:
    """List settings; those inside others get the names of both, with a dot between."""
    found: Pairs = []
    for name, value in settings.items():
        found += _entry(f"{path}{name}", value)
    return found


def unfolded(text: str) -> str | Pairs:
    """Read a text that holds a JSON object as settings; any other stays a text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return pairs(value) if isinstance(value, dict) else text


def _entry(name: str, value: Any) -> Pairs:
    if isinstance(value, Mapping):
        return pairs(value, f"{name}.")
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        numbered = enumerate(value)
        return [pair for number, item in numbered for pair in _entry(f"{name}.{number}", item)]
    return [(name, setting(value))]
