"""Published costs of single operations on chips: ``energy/NAME.toml``, with a source per figure.

A table has the energy and time of one synaptic operation, one message and one neuron update, each
as a range. Missing entries are not counted; nothing is estimated in their place.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Range(BaseModel):
    """A figure between two bounds, with its source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float = Field(ge=0)
    high: float
    source: str = Field(min_length=20)

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class CostTable(BaseModel):
    """Costs of single operations on a chip, or in a process technology.

    Attributes
    ----------
    kind : {"digital", "analog"}
        Kind of networks to which it applies.
    title : str
    synop_pj, message_pj, update_pj : Range, optional
        Energy of a synaptic operation, of a message and of a neuron update; picojoules.
    step_ns : Range, optional
        Shortest time step of the chip; nanoseconds.
    synop_ns, message_ns, update_ns : Range, optional
        Time of an operation; nanoseconds.
    time_factor : Range, optional
        Real time per simulated time of the neurons.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["digital", "analog"]
    title: str
    synop_pj: Range | None = None
    message_pj: Range | None = None
    update_pj: Range | None = None
    step_ns: Range | None = None
    synop_ns: Range | None = None
    message_ns: Range | None = None
    update_ns: Range | None = None
    time_factor: Range | None = None


@cache
def cost_tables() -> dict[str, CostTable]:
    """Return all tables by name, in alphabetical order."""
    folder = files("lmu_deploy.hardware") / "energy"
    items = sorted((i for i in folder.iterdir() if i.name.endswith(".toml")), key=lambda i: i.name)
    return {
        item.name.removesuffix(".toml"): CostTable.model_validate(
            tomllib.loads(item.read_text(encoding="utf-8"))
        )
        for item in items
    }
