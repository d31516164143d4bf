"""What single operations cost on chips, as published: ``energy/NAME.toml``, a source per figure.

A table says what one synaptic operation, one message and one update of a neuron take, in energy
and in time, each as a range. What it does not say is not counted for it, and nothing is guessed.
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
    """A figure between two bounds, and where it stands."""

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
    """What one operation takes on a chip, or in a process.

    Attributes
    ----------
    kind : {"digital", "analog"}
        Of which networks it can say something.
    title : str
    synop_pj, message_pj, update_pj : Range, optional
        Energy of a synaptic operation, of a message sent, of a neuron's update; picojoules.
    step_ns : Range, optional
        Shortest time step of the chip; nanoseconds.
    synop_ns, message_ns, update_ns : Range, optional
        What an operation adds to the time; nanoseconds.
    time_factor : Range, optional
        Seconds that pass for each second that the neurons live through.
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
    """Read all tables, by name and in its order."""
    folder = files("lmu_deploy.hardware") / "energy"
    items = sorted((i for i in folder.iterdir() if i.name.endswith(".toml")), key=lambda i: i.name)
    return {
        item.name.removesuffix(".toml"): CostTable.model_validate(
            tomllib.loads(item.read_text(encoding="utf-8"))
        )
        for item in items
    }
