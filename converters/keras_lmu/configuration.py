"""One layer's configuration, of which each value is checked when it is read.

A wrong value becomes a clause in a list of problems, so that a user sees all of them at once; a
default stands in for it until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from converters.keras_lmu.architecture import KerasLayer
from lmu_deploy.checks import check_choice, check_flag, check_integer, check_number
from lmu_deploy.errors import InputError

_LARGEST = 65_536


class Configuration:
    """Options of one layer by name.

    Parameters
    ----------
    layer : KerasLayer
        For messages.
    config : dict of str to Any
        Its own, or that of a layer within it.
    problems : list of str
        Grows by a clause for each wrong value.
    """

    def __init__(self, layer: KerasLayer, config: dict[str, Any], problems: list[str]) -> None:
        self.layer = layer
        self.config = config
        self._problems = problems

    def flag(self, name: str, default: bool = False) -> bool:
        """Give True or False."""
        return bool(self._checked(check_flag, name, default))

    def integer(self, name: str, most: int = _LARGEST) -> int:
        """Give a positive integer."""
        return int(self._checked(lambda n, v: check_integer(n, v, 1, most), name, 1))

    def number(self, name: str, low: float, high: float) -> float:
        """Give a number between bounds."""
        return float(self._checked(lambda n, v: check_number(n, v, low, high), name, 1.0))

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """Give one of some texts."""
        value = self.config.get(name, default)
        if isinstance(value, dict):  # an activation written as an object
            value = value.get("config", {}) if value.get("class_name") == "function" else value
            value = value.get("class_name", value) if isinstance(value, dict) else value
        return str(self._checked(lambda n, v: check_choice(n, v, choices), name, default, value))

    def inner(self, name: str) -> tuple[str, Configuration] | None:
        """Give the class and the options of a layer within this one."""
        node = self.config.get(name)
        if not isinstance(node, dict) or not isinstance(node.get("config"), dict):
            self.problem(f"{name} has no configuration")
            return None
        kind = str(node.get("class_name")).rsplit(">", 1)[-1]
        return kind, Configuration(self.layer, node["config"], self._problems)

    def problem(self, clause: str) -> None:
        """Say what cannot be represented."""
        self._problems.append(f"{self.layer}: {clause}")

    def _checked(
        self, check: Callable[[str, Any], Any], name: str, default: Any, value: Any = None
    ) -> Any:
        value = self.config.get(name, default) if value is None else value
        try:
            return check(name, value)
        except InputError as error:
            self.problem(str(error).rstrip("."))
            return default
