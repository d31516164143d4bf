"""The Run of a LoihiNetwork: what every target of it says of itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmu_deploy.loihi_network import LoihiNetwork
from lmu_deploy.network import LMULayer
from targets.base import Run, States
from targets.spiking.layers import Outcome


def make_run(
    target: str,
    network: LoihiNetwork,
    outcome: Outcome,
    *,
    record: bool,
    seed: int,
    wall_seconds: float,
    notes: tuple[str, ...] = (),
    settings: dict[str, Any] | None = None,
) -> Run:
    """Put together what a target gives back.

    Parameters
    ----------
    target : str
    network : LoihiNetwork
    outcome : Outcome
    record : bool
        Whether states were asked for.
    seed : int
    wall_seconds : float
    notes, settings
        What this target adds to those of all.
    """
    steps = outcome.y.shape[1]
    states = None
    if record:
        h_scale = np.ones(outcome.h.shape[2])
        states = States(outcome.m, outcome.h, outcome.y, outcome.unit, h_scale)
    return Run(
        target=target,
        outputs=outcome.y if network.return_sequences else outcome.y[:, -1],
        neurons=outcome.neurons,
        events=outcome.events,
        synops=outcome.synops,
        saturations=outcome.saturations,
        steps=steps,
        chip_steps=steps * network.steps_per_hold + 1,
        wall_seconds=wall_seconds,
        seed=seed,
        states=states,
        rasters=outcome.rasters,
        notes=(*_notes(network), *notes),
        settings=_settings(network) | (settings or {}),
    )


def _notes(network: LoihiNetwork) -> tuple[str, ...]:
    layers = [layer for layer in network.host.layers if isinstance(layer, LMULayer)]
    notes = [
        "The memory ran on LIF neurons in Loihi's fixed point; encoders, hidden layer and readout "
        "ran on the host in float.",
        "Relays hold the state and send graded messages, which the first Loihi cannot: there an "
        "embedded core or the host does their work.",
        f"Each input was held for {network.hold_ms:g} ms; m is the state of the relays at the end "
        "of the hold.",
    ]
    if len(layers) > 1:
        notes.append("Layers ran one after the other, each for the whole of the input.")
    if any(layer.feeds_back for layer in layers):
        notes.append(
            "Feedback from hidden units or memory into the memory's input went through the host "
            "once in each hold."
        )
    if len(layers) < len(network.host.layers):
        notes.append("LSTM layers ran on the host in float.")
    return tuple(notes)


def _settings(network: LoihiNetwork) -> dict[str, Any]:
    memory = next(memory for memory in network.memories if memory is not None)
    return {
        "profile": network.profile,
        "weight_bits": 8,
        "neuron": "lif, fixed point",
        "neurons_per_state": memory.neurons.neurons,
        "current_decay": memory.neurons.current_decay,
        "membrane_decay": memory.neurons.membrane_decay,
        "threshold": memory.neurons.threshold,
        "calibration": network.calibration.method,
        "calibration_error": network.calibration.fit_error,
        "calibration_ridge": network.calibration.ridge,
        "dt_ms": network.dt_ms,
        "tau_ms": network.tau_ms,
        "hold_ms": network.hold_ms,
    }
