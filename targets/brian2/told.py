"""What a reader of the results has to know of a run on Brian2: notes and settings."""

from __future__ import annotations

from typing import Any

from lmu_deploy.network import LMULayer
from lmu_deploy.spiking_network import SpikingNetwork
from lmu_deploy.spiking_units import why_on_host


def notes_of(network: SpikingNetwork) -> tuple[str, ...]:
    """Say which part ran where, and what else a reader has to know."""
    told = [
        _where(network),
        f"Each input was held for {network.hold_ms:g} ms; m is the state of the synapses at the "
        "end of the hold.",
        "Synaptic operations count every neuron that a spike reaches, weights not factored.",
    ]
    layers = [layer for layer in network.host.layers if isinstance(layer, LMULayer)]
    if any(layer.feeds_back for layer in layers):
        told.append(
            "Feedback from hidden units or memory into the memory's input went through the host "
            "once in each hold."
        )
    if network.synapse is not None:
        told.append(
            f"Synapses were pairs of DPIs of gain {network.synapse.gain:g}; W was calibrated for "
            "linear ones."
        )
    if len(layers) < len(network.host.layers):
        told.append("LSTM layers ran on the host in float.")
    return tuple(told)


def _where(network: SpikingNetwork) -> str:
    if network.units is not None:
        told = (
            "Memories, the last layer's hidden units and the readout ran on spiking neurons; "
            "encoders and biases came from the host. h is what the units' drives stand for, y "
            "the state of the readout's synapses."
        )
        return told + (
            " Hidden units of other layers ran on the host in float."
            if len(network.host.layers) > 1
            else ""
        )
    reason = why_on_host(network.host)
    return (
        "The memory ran on spiking neurons; encoders, hidden layer and readout ran on the host "
        "in float"
        + (f", for {reason}." if reason else ", though they could be on neurons (--units chip).")
    )


def settings_of(network: SpikingNetwork, version: str, codegen: str) -> dict[str, Any]:
    """Say how the chip and the simulation were set up, as JSON values."""
    memories = [memory for memory in network.memories if memory is not None]
    units = network.units
    return {
        "profile": network.device.profile,
        "chip_seed": network.device.seed,
        "mismatch": network.device.mismatch,
        "membrane_noise": network.device.membrane_noise,
        "threshold_noise": network.device.threshold_noise,
        "tau_mismatch": network.device.tau_mismatch,
        "weight_bits": network.device.weight_bits,
        "neuron": network.neuron.kind,
        "synapse": "linear" if network.synapse is None else "dpi",
        "neurons_per_state": memories[0].populations.neurons if memories else 0,
        "neurons_per_unit": 0 if units is None else units.populations.neurons,
        "readout_tau_ms": None if units is None else units.tau_ms,
        "maximum_rates": network.maximum_rates,
        "calibration": network.calibration.method,
        "calibration_error": network.calibration.fit_error,
        "calibration_ridge": network.calibration.ridge,
        "dt_ms": network.dt_ms,
        "tau_ms": network.tau_ms,
        "hold_ms": network.hold_ms,
        "brian2": version,
        "codegen": codegen,
    }
