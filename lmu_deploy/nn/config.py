"""Configuration of networks as validated data, with the same fields in TOML, JSON and Python.

This module does not import torch; :class:`lmu_deploy.nn.model.SequenceModel` builds a network from
a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmu_deploy.core.errors import InputError

Activation = Literal["linear", "relu", "tanh", "hard-tanh"]
Discretizer = Literal["zoh", "bilinear", "euler"]
HiddenKind = Literal["recurrent", "feedforward", "none"]
Initialization = Literal["random", "memory"]


class LMUConfig(BaseModel):
    """One LMU layer; each field is an argument of :class:`lmu_deploy.nn.lmu.LMU`.

    Attributes
    ----------
    units : int
        Hidden units; 0 exactly when `hidden` is "none".
    order, channels : int
    theta : float
        Window length in steps.
    init : {"random", "memory"}
        Initialization of the weights; see :func:`lmu_deploy.nn.lmu.init_weights`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["lmu"] = "lmu"
    units: int = Field(ge=0, le=65_536)
    order: int = Field(ge=1, le=4096)
    theta: float = Field(ge=1, le=1e12)
    channels: int = Field(default=1, ge=1, le=65_536)
    discretizer: Discretizer = "zoh"
    activation: Activation = "tanh"
    hidden: HiddenKind = "recurrent"
    input_to_hidden: bool = True
    hidden_to_memory: bool = False
    memory_to_memory: bool = False
    memory_bias: bool = False
    hidden_bias: bool = True
    train_theta: bool = False
    train_memory: bool = False
    init: Initialization = "random"

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_name(cls, data: Any) -> Any:
        """Accept ``start``, the name of `init` before version 0.2."""
        if isinstance(data, Mapping) and "start" in data and "init" not in data:
            return {("init" if key == "start" else key): value for key, value in data.items()}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> LMUConfig:
        if (self.units == 0) != (self.hidden == "none"):
            raise ValueError(
                f"units is {self.units} and hidden is {self.hidden!r}; "
                "give units = 0 exactly when hidden = 'none'"
            )
        if self.hidden == "none" and self.hidden_to_memory:
            raise ValueError("hidden_to_memory needs hidden units, and hidden is 'none'")
        if self.train_theta and self.train_memory:
            raise ValueError("train_theta and train_memory exclude each other; choose one")
        return self

    @property
    def n_out(self) -> int:
        """Number of output features."""
        return self.channels * self.order if self.hidden == "none" else self.units


class LSTMConfig(BaseModel):
    """One LSTM layer of `units` units."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["lstm"] = "lstm"
    units: int = Field(ge=1, le=65_536)

    @property
    def n_out(self) -> int:
        """Number of output features."""
        return self.units


LayerConfig = Annotated[LMUConfig | LSTMConfig, Field(discriminator="kind")]


class ModelConfig(BaseModel):
    """A network: a sequence of layers followed by a linear readout.

    Attributes
    ----------
    n_in, n_out : int
        Number of input and output features.
    layers : tuple of LMUConfig or LSTMConfig
    return_sequences : bool
        Whether the output is y at every step, or y at the last step only.
    readout_bias : bool
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    n_in: int = Field(ge=1, le=65_536)
    n_out: int = Field(ge=1, le=65_536)
    layers: tuple[LayerConfig, ...] = Field(min_length=1)
    return_sequences: bool = False
    readout_bias: bool = True


class StackSettings(BaseModel):
    """A stack of residual blocks around parallel LMUs, without its inputs and outputs.

    Attributes
    ----------
    blocks : int
    width : int
        Features of every step between the blocks, and hidden units of a block.
    channels : int
        Of the memory of every block.
    order : int, optional
        By default as many as its window has steps, at most 32.
    theta : float, optional
        Its window, in steps behind the stem; by default the whole sequence.
    stem_stride : int
        Steps of the input that the stem takes together as one step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    blocks: int = Field(default=2, ge=1, le=100)
    width: int = Field(default=128, ge=1, le=65_536)
    channels: int = Field(default=8, ge=1, le=65_536)
    order: int | None = Field(default=None, ge=1, le=4096)
    theta: float | None = Field(default=None, ge=1, le=1e12)
    stem_stride: int = Field(default=1, ge=1, le=65_536)


class StackConfig(StackSettings):
    """A stack of residual blocks around parallel LMUs; see :mod:`lmu_deploy.nn.graph.module`.

    Attributes
    ----------
    n_in, n_out : int
        Number of input and output features.
    return_sequences : bool
        Whether the output is y at every step, or one y from the mean over time.
    """

    n_in: int = Field(ge=1, le=65_536)
    n_out: int = Field(ge=1, le=65_536)
    order: int = Field(ge=1, le=4096)
    theta: float = Field(ge=1, le=1e12)
    return_sequences: bool = False


def read_model_config(data: Mapping[str, Any]) -> ModelConfig:
    """Return a ModelConfig from a mapping (from TOML, JSON or Python).

    Raises
    ------
    InputError
        When a field is unknown, missing or out of range; the message names the first one.
    """
    try:
        return ModelConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(f"model configuration, {place}: {first['msg']}.") from error
