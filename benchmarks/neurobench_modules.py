"""Networks of neurobench_oracle.py as torch modules: a Linear each connection, a Sent what is sent.

They do the arithmetic of the networks in float64, where integers stay whole, and are what
NeuroBench hooks into. Run by neurobench_oracle.py in NeuroBench's environment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from neurobench_oracle import (
    DT_MS,
    HIDDEN_BITS,
    HOLD,
    MEMBRANE_MS,
    MESSAGE_BITS,
    MESSAGE_SHIFT,
    STATE_BITS,
    TAU_MS,
    shift_of,
)
from torch import nn

Weights = dict[str, np.ndarray]


def linear(
    matrix: np.ndarray, bias: np.ndarray | None = None, kind: Any = torch.float64
) -> nn.Linear:
    """Make a Linear of a matrix (n_out, n_in)."""
    layer = nn.Linear(matrix.shape[1], len(matrix), bias=bias is not None, dtype=kind)
    layer.weight.data = torch.tensor(matrix, dtype=kind)
    if bias is not None:
        layer.bias.data = torch.tensor(bias, dtype=kind)
    return layer


class Sent(nn.Module):
    """Messages or spikes of a population, as they are."""

    def forward(self, messages: torch.Tensor) -> torch.Tensor:
        """Return what it is given, where NeuroBench looks."""
        return messages


class Float(nn.Module):
    """Holds the parameters of an LMU; NeuroBench does not run it."""

    def __init__(self, w: Weights) -> None:
        super().__init__()
        single = torch.float32
        names = ("input_encoders", "hidden_encoders", "input_kernel")
        self.encoders = nn.ModuleList([linear(w[n].T, kind=single) for n in names])
        self.a_bar = linear(w["a_bar"], kind=single)
        self.b_bar = linear(w["b_bar"][:, None], kind=single)
        self.hidden = linear(w["memory_kernel"].T, w["hidden_bias"], single)
        self.readout = linear(w["readout"].T, w["readout_bias"], single)


class Slices(nn.Module):
    """One connection: a Linear for each slice, whose sums are scaled, rounded and added."""

    def __init__(self, slices: np.ndarray, shift: int) -> None:
        super().__init__()
        self.slices, self.shift = nn.ModuleList([linear(each) for each in slices]), shift

    def forward(self, messages: torch.Tensor) -> torch.Tensor:
        """Return the drive of (batch, n_in) messages."""
        half = 0.5 if self.shift else 0.0
        sums = (_limited(each(messages), STATE_BITS) for each in self.slices)
        return sum(torch.floor(s * 2.0**-self.shift + half) for s in sums)


class Integer(nn.Module):
    """The integer network; messages are delivered when they are sent, the last ones too."""

    def __init__(self, w: Weights) -> None:
        super().__init__()
        for name, value in w.items():
            if value.ndim == 3 and name not in ("inputs", "outputs"):
                setattr(self, name, Slices(value, shift_of(name)))
        self.register_buffer("bias", torch.tensor(w["readout_bias"], dtype=torch.float64))
        self.memory_sent, self.hidden_sent = Sent(), Sent()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Answer (batch, steps, n_in) at every step."""
        drive, state, y = 0.0, 0.0, []
        for x in inputs.unbind(1):
            state = _limited(state + drive + self.input(x), STATE_BITS)
            message = torch.floor(state * 2.0**-MESSAGE_SHIFT + 0.5)
            message = self.memory_sent(_limited(message, MESSAGE_BITS))
            z = _limited(self.hidden_memory(message) + self.hidden_input(x), STATE_BITS)
            h = torch.sign(z) * torch.floor(z.abs() / 64 + 0.5)
            h = self.hidden_sent(_limited(h, HIDDEN_BITS))
            drive = self.recurrent(message) + self.hidden(h)
            y.append(_limited(self.readout(h) + self.bias, STATE_BITS))
        return torch.stack(y, 1)


class Spiking(nn.Module):
    """The spiking memory, with a synapse between every two neurons that a weight joins."""

    def __init__(self, w: Weights) -> None:
        super().__init__()
        self.w = {name: torch.tensor(value) for name, value in w.items()}
        channels, order, per_channel = w["weights"].shape
        repeats = per_channel // order
        full = np.repeat(w["weights"], repeats, axis=1) / (DT_MS * 1e-3)
        self.synapses = nn.ModuleList([linear(each) for each in full])
        self.sent, self.channels = Sent(), channels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the states of (batch, steps, n_in) at the end of every presentation."""
        w, samples = self.w, len(inputs)
        decay = float(np.exp(-DT_MS / TAU_MS))
        slope, v = w["gains"] * w["encoders"], w["membranes"].clone()
        x = torch.zeros(samples, *w["gains"].shape, dtype=torch.float64)
        entering = w["input"] / w["scales"]
        y = []
        for u in (inputs @ w["input_encoders"]).unbind(1):
            given = (u[:, :, None] * entering).reshape(samples, -1, 1)
            for _ in range(HOLD):
                v = v + DT_MS / MEMBRANE_MS * (slope * x + w["biases"]).clamp(min=0)
                spikes = self.sent((v > 1).to(torch.float64))
                v = v - spikes
                sent = spikes.reshape(samples, self.channels, -1).unbind(1)
                drive = [each(s) for each, s in zip(self.synapses, sent, strict=True)]
                drive = torch.stack(drive, 1).reshape(x.shape)
                x = decay * x + (1 - decay) * (drive + given)
            y.append(x[:, :, 0] * w["scales"].reshape(-1))
        return torch.stack(y, 1)


def _limited(values: torch.Tensor, bits: int) -> torch.Tensor:
    most = 2.0 ** (bits - 1) - 1
    return values.clamp(-most, most)


MODULES = {"float": Float, "integer": Integer, "spiking": Spiking}
