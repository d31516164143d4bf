"""Target `halfchip`: an invented chip that holds every state in a 16-bit float.

A target of a real chip imports its library inside `run`, and raises MissingDependencyError with
the command that installs it.
"""

from __future__ import annotations

import time

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.network import LMULayer, LMUNetwork, LSTMLayer, default_names
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.reference import activate
from lmu_deploy.core.validation import check_inputs
from targets.base import Run, States, check_supported


class HalfChipTarget:
    """Runs float networks of LMU layers; weights stay as they are, states are rounded."""

    name = "halfchip"
    accepts: tuple[type, ...] = (LMUNetwork,)
    # Ten bits of a number are kept; rounding errors of ten steps add up to less than this.
    conformance_tolerance = 0.01

    def unsupported(self, network: LMUNetwork) -> list[str]:
        """Name every layer that the chip cannot run."""
        return [
            f"layer {number} is an LSTM, and the chip has no gates"
            for number, layer in enumerate(network.layers)
            if isinstance(layer, LSTMLayer)
        ]

    def run(
        self,
        network: LMUNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run all samples side by side, step by step; nothing here is random."""
        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        samples, steps, _ = inputs.shape
        if samples * steps == 0:
            raise InputError(f"inputs have {samples} samples of {steps} steps; give some of each.")
        start = time.perf_counter()
        layers = [_Layer(layer, samples) for layer in network.layers]
        sizes = [layer.size for layer in layers]
        m, h, y = [], [], []
        for t in range(steps):
            signal = inputs[:, t]
            for layer in layers:
                signal = layer.advance(signal)
            m.append(np.concatenate([layer.m for layer in layers], axis=1))
            h.append(np.concatenate([layer.h for layer in layers], axis=1))
            bias = 0.0 if network.readout.bias is None else network.readout.bias
            y.append(_half(signal @ network.readout.kernel + bias))
            if progress:
                progress(t + 1, steps)
        answers = np.stack(y, axis=1)
        return Run(
            target=self.name,
            outputs=answers if network.return_sequences else answers[:, -1],
            neurons=dict(zip(default_names(len(layers)), sizes, strict=False)),
            events={},
            synops=0,
            saturations={},
            steps=steps,
            chip_steps=steps,
            wall_seconds=time.perf_counter() - start,
            seed=seed,
            states=_states(m, h, answers) if record else None,
            notes=("Registers are read in parallel; no value is sent as an event.",),
        )


class _Layer:
    """States of one layer, and the equations of lmu_deploy/core/network.py, rounded after each."""

    def __init__(self, layer: LMULayer, samples: int) -> None:
        self.layer = layer
        self.m = np.zeros((samples, layer.memory.size))
        self.h = np.zeros((samples, 0 if layer.hidden is None else layer.hidden.units))
        self.size = self.m.shape[1] + self.h.shape[1]

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Take an input (samples, n_in); return the input of the next layer."""
        layer, memory = self.layer, self.layer.memory
        u = x @ layer.input_encoders
        u = u + _times(self.h, layer.hidden_encoders) + _times(self.m, layer.memory_encoders)
        u = _half(u + (0.0 if layer.memory_bias is None else layer.memory_bias))
        m = self.m.reshape(-1, memory.channels, memory.order) @ memory.a_bar.T
        self.m = _half((m + u[:, :, None] * memory.b_bar).reshape(self.m.shape))
        if (hidden := layer.hidden) is None:
            return self.m
        z = self.m @ hidden.memory_kernel
        z = z + _times(x, hidden.input_kernel) + _times(self.h, hidden.recurrent_kernel)
        z = _half(z + (0.0 if hidden.bias is None else hidden.bias))
        self.h = _half(activate(hidden.activation, z))
        return self.h


def _half(values: np.ndarray) -> np.ndarray:
    """Round to 16-bit floats; larger values become the largest of these."""
    largest = float(np.finfo(np.float16).max)
    return np.clip(values, -largest, largest).astype(np.float16).astype(np.float64)


def _times(values: np.ndarray, kernel: np.ndarray | None) -> np.ndarray | float:
    return 0.0 if kernel is None else values @ kernel


def _states(m: list[np.ndarray], h: list[np.ndarray], y: np.ndarray) -> States:
    memory, hidden = np.stack(m, axis=1), np.stack(h, axis=1)
    return States(memory, hidden, y, np.ones(memory.shape[2]), np.ones(hidden.shape[2]))
