"""Calibrate a chip in a laboratory from a file of its currents and spikes.

The chip here is simulated, and nobody but the chip knows its mismatch. In a laboratory, the file
`session.npz` says which currents to drive (arrays 0.gains, 0.biases, 0.drive, ...), and the spikes
that come back replace the arrays 0.spikes, 1.spikes and so on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import lmu_deploy as ld
from converters.spiking.device import RecordedDevice
from converters.spiking.neurons import VirtualDevice
from lmu_deploy.core.spiking.chip import Device
from lmu_deploy.fidelity.attribution.chips import run_hybrid

DIGITS = Path(__file__).resolve().parent / "models" / "digits.safetensors"
OPTIONS = {"neurons_per_state": 20, "weight_bits": 6, "calibration_samples": 60}


def memory_error(network: ld.SpikingNetwork, chip: VirtualDevice, inputs: np.ndarray) -> float:
    """Run a network on a chip; return the error of its states relative to float."""
    truth = ld.run_reference(network.host, inputs, record=True).m
    found = run_hybrid(network, inputs, [0], device=chip).m[0]
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


with tempfile.TemporaryDirectory() as name:
    session = Path(name) / "session.npz"
    # In the laboratory: play what calibration asks for, and keep the spikes.
    ld.spike(DIGITS, chip_seed=7, mismatch=0.3, record_session=session, **OPTIONS)
    for run in RecordedDevice.load(session).runs:
        steps, trials, states = run.drive.shape
        print(f"{run.place}: {trials} trials of {steps} steps of {states} states")

    # At the desk: calibrate from the file alone.
    calibrated = ld.spike(DIGITS, device=session, **OPTIONS)

# The weights go back to the laboratory; here, its chip runs them.
plain = ld.spike(DIGITS, calibration="none", mismatch=0.0, **OPTIONS)
images = ld.load_task("digits").test.inputs[:60]
chip = VirtualDevice(Device("generic-analog", 7, 0.3, 0.0, 6), seed=7)
before, after = (memory_error(network, chip, images) for network in (plain, calibrated))
print(
    f"error of the states on the laboratory's chip: {before:.3f} as built, {after:.3f} calibrated"
)
