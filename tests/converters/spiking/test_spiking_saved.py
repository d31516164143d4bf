"""Calibrations in files: the same network again, and an error for anything else."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from converters.spiking import spike
from converters.spiking.recipe import keep_calibration, load_calibration
from lmu_deploy.api.spike import spike as command
from lmu_deploy.cli import main
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import fingerprint, save
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.spiking.chip import Device, DPISynapse
from lmu_deploy.hardware.profile import AnalogProfile, load_profile, profile_names

DIGITS = Path(__file__).parents[3] / "examples" / "models" / "digits.safetensors"
OPTIONS = {"neurons_per_state": 5, "calibration": "static", "mismatch": 0.2, "chip_seed": 3}


@pytest.fixture
def network():
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(2, 8.0), None)
    return LMUNetwork((layer,), Readout(np.eye(2), None))


@pytest.fixture
def inputs(rng):
    return rng.uniform(-1, 1, (6, 8, 1))


@pytest.fixture
def saved(network, inputs):
    return keep_calibration(spike(network, inputs, **OPTIONS))


def test_a_saved_calibration_gives_the_same_network(network, inputs, saved, tmp_path):
    made = spike(network, inputs, **OPTIONS)
    save(saved, tmp_path / "c.safetensors")
    stored = load_calibration(tmp_path / "c.safetensors")
    again = spike(network, inputs[:1], saved=stored, **OPTIONS)
    np.testing.assert_equal(dataclasses.asdict(again), dataclasses.asdict(made))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"profile": "braindrop"}, "is for profile generic-analog, and braindrop is requested"),
        ({"chip_seed": 4}, "is for chip seed 3, and 4 is requested"),
        ({"mismatch": 0.1}, "is for mismatch 0.2, and 0.1"),
        ({"weight_bits": 6}, "is for weight_bits 0, and 6"),
        ({"neuron": "dpi"}, "is for neuron model lif, and dpi"),
        ({"tau_ms": 50.0}, "is for tau_ms 100.0, and 50.0"),
        ({"neurons_per_state": 6}, "is for neurons_per_state 5, and 6"),
        ({"calibration": "dynamic"}, "is for method static, and dynamic"),
        ({"seed": 1}, "is for seed 0, and 1"),
        ({"maximum_rates": (50.0, 60.0)}, r"maximum rates \(100.0, 200.0\), and \(50.0, 60.0\)"),
    ],
)
def test_a_calibration_of_something_else_is_refused(network, inputs, saved, change, message):
    with pytest.raises(InputError, match=message) as caught:
        spike(network, inputs, saved=saved, **{**OPTIONS, **change})
    assert "\n" not in str(caught.value)


def test_a_calibration_of_another_network_is_refused(network, inputs, saved):
    other = dataclasses.replace(network, readout=Readout(2.0 * np.eye(2), None))
    with pytest.raises(InputError, match=r"is for network [0-9a-f]{12}, and [0-9a-f]{12}"):
        spike(other, inputs, saved=saved, **OPTIONS)
    renamed = dataclasses.replace(network, task="digits", provenance={"made": "today"})
    assert fingerprint(renamed) == fingerprint(network) != fingerprint(other)


def test_the_command_keeps_and_takes_calibrations(saved, tmp_path):
    options = {
        "neurons_per_state": 2,
        "calibration": "static",
        "presentation_ms": 20.0,
        "tau_ms": 20.0,
    }
    stored = tmp_path / "c.safetensors"
    command(DIGITS, out=tmp_path / "a.safetensors", save_calibration=stored, **options)
    command(DIGITS, out=tmp_path / "b.safetensors", load_calibration=stored, **options)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with pytest.raises(InputError, match="contains a SpikingNetwork, not a calibration"):
        command(DIGITS, load_calibration=tmp_path / "a.safetensors", **options)
    with pytest.raises(InputError, match="SavedCalibration"):
        load(stored)


def test_options_of_the_command_line_reach_the_network(tmp_path, monkeypatch):
    out = tmp_path / "s.safetensors"
    options = (
        "--neurons-per-state 2 --neuron dpi --synapse dpi --dt-ms 0.5 --presentation-ms 20 "
        "--tau-ms 40 --mismatch 0.3 --membrane-noise 0.1 --weight-bits 5 --calibration none "
        "--seed 2 --chip-seed 7 --max-rates 50 60"
    )
    arguments = ["lmu-deploy", "spike", str(DIGITS), "--out", str(out), *options.split()]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    made = load(out)
    assert (made.dt_ms, made.presentation_ms, made.tau_ms) == (0.5, 20.0, 40.0)
    assert made.device == Device("generic-analog", 7, 0.3, 0.1, 5)
    assert made.neuron.kind == "dpi" and made.synapse == DPISynapse()
    assert (made.calibration.method, made.calibration.seed) == ("none", 2)
    assert made.memories[0].populations.neurons == 2
    assert made.maximum_rates == (50.0, 60.0)


def test_every_analog_profile_names_its_sources_and_makes_a_network(network, inputs):
    assert set(profile_names("analog")) >= {"braindrop", "brainscales2", "dynapse2"}
    for name in profile_names("analog"):
        profile = load_profile(name, "analog")
        assert isinstance(profile, AnalogProfile)
        made = spike(network, inputs, name, neurons_per_state=5, calibration="static")
        assert made.neuron.kind == profile.neuron.value
        assert made.device.weight_bits == profile.weight_bits.value
        assert made.neuron.refractory_ms == pytest.approx(1e3 * profile.refractory.value)
    assert load_profile("dynapse2", "analog").neuron.value == "dpi"


def test_a_network_too_large_for_a_chip_is_refused(network, inputs):
    with pytest.raises(InputError, match=r"brainscales2 has 512; use at most 256 neurons"):
        spike(network, inputs, "brainscales2", neurons_per_state=257)
    with pytest.raises(InputError, match="synapse is 'alpha'; choose one of"):
        spike(network, inputs, synapse="alpha")
    with pytest.raises(InputError, match="calibration_samples is 0"):
        spike(network, inputs, calibration_samples=0)
