"""Devices behind calibration: one interface for boards, virtual chips and recordings."""

from __future__ import annotations

import dataclasses
import logging
import zipfile
from importlib.metadata import EntryPoint, entry_points

import numpy as np
import pytest

from converters.options import SpikeOptions
from converters.spiking import spike
from converters.spiking.calibration import examine, static
from converters.spiking.device import (
    GROUP,
    Block,
    NeuronDevice,
    RecordedDevice,
    SessionRecorder,
    play,
)
from converters.spiking.lower import device_for, open_device
from converters.spiking.neurons import Chip, VirtualDevice
from converters.spiking.populations import make_populations
from lmu_deploy.core import plugins
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.chip import Device, NeuronModel
from lmu_deploy.core.spiking.network import SPIKING_CLASSES
from lmu_deploy.fidelity.attribution.chips import VirtualChip, run_hybrid
from targets.brian2 import Brian2Target

ORDER, STEPS = 4, 12
SETTINGS = {"neurons_per_state": 20, "presentation_ms": 20.0, "units": "host", "seed": 2}
LAB = Device("generic-analog", 0, 0.3, 0.05, 6)
LAB_CHIP = VirtualDevice(LAB, seed=7)
LIF = NeuronModel("lif", 20.0, 2.0)


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(3)
    hidden = Hidden(rng.normal(size=(ORDER, 5)), None, None, None, "tanh")
    memory = Memory.legendre(ORDER, 12.0, 1)
    layer = LMULayer(rng.normal(size=(2, 1)), None, None, None, memory, hidden)
    return LMUNetwork((layer,), Readout(rng.normal(size=(5, 2)), None))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(4)
    return np.sin(np.linspace(0, 5, STEPS)[None, :, None] * rng.uniform(0.5, 2, (30, 1, 2)))


class Board(NeuronDevice):
    """A driver as another package writes one: it only plays drives, and counts them."""

    played = 0

    def __init__(self):
        self.chip = VirtualDevice(LAB, seed=7)

    def run(self, block, drive, seed):
        type(self).played += drive.shape[1]
        assert block.gains.shape == block.biases.shape == (ORDER, 20)
        assert drive.dtype == np.float32
        return self.chip.run(block, drive, seed)


def error(network, chip, inputs, device):
    truth = run_reference(network, inputs, record=True).m
    found = run_hybrid(chip, inputs, [0], device=device).m[0]
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.fixture(scope="module")
def session(network, inputs, tmp_path_factory):
    """Record what calibration drives on a chip whose mismatch only the chip knows."""
    path = tmp_path_factory.mktemp("lab") / "session.npz"
    recorder = SessionRecorder(LAB_CHIP)
    made = spike(network, inputs, device=recorder, weight_bits=6, membrane_noise=0.05, **SETTINGS)
    recorder.save(path)
    return path, made


def from_file(network, inputs, path, **changes):
    options = {**SETTINGS, "weight_bits": 6, "membrane_noise": 0.05, **changes}
    return spike(network, inputs, device=path, **options)


def test_a_recorded_session_gives_the_same_weights(network, inputs, session):
    path, made = session
    found = from_file(network, inputs, path)
    np.testing.assert_array_equal(found.memories[0].weights, made.memories[0].weights)
    assert found.device.board == "session.npz"
    assert found.calibration == made.calibration


NAMES = ("lmu_1", "answer")


def test_a_session_names_the_layers_of_the_network(network, inputs, session):
    """The chip is that of a network without names: mismatch depends on the layers' positions."""
    _, made = session
    named, recorder = dataclasses.replace(network, names=NAMES), SessionRecorder(LAB_CHIP)
    found = spike(named, inputs, device=recorder, weight_bits=6, membrane_noise=0.05, **SETTINGS)
    assert {run.place for run in recorder.runs} == {"lmu_1/memory"}
    np.testing.assert_array_equal(found.memories[0].weights, made.memories[0].weights)


def test_a_session_of_a_version_that_numbered_layers_is_replayed(network, inputs, session):
    path, made = session
    assert {run.place for run in RecordedDevice.load(path).runs} == {"layer0/memory"}
    found = from_file(dataclasses.replace(network, names=NAMES), inputs, path)
    np.testing.assert_array_equal(found.memories[0].weights, made.memories[0].weights)


def test_calibration_from_files_alone_fits_the_chip_in_the_laboratory(network, inputs, session):
    """It fits that chip, and neither the chip that is programmed nor another one."""
    path, _ = session
    found = from_file(network, inputs, path)
    plain = spike(network, inputs, mismatch=0.0, calibration="none", **SETTINGS)
    frequencies = np.random.default_rng(9).uniform(0.5, 2, (30, 1, 2))
    held_out = np.sin(np.linspace(0, 5, STEPS)[None, :, None] * frequencies)
    lab, other = VirtualDevice(LAB, seed=7), VirtualDevice(LAB, seed=8)
    calibrated = error(network, found, held_out, lab)
    assert calibrated < 0.5 * error(network, plain, held_out, lab)
    assert calibrated < 0.5 * error(network, found, held_out, other)


def test_a_plug_in_board_is_calibrated_through_its_driver_only(network, inputs, monkeypatch):
    entries = [*entry_points(group=GROUP), EntryPoint("ours", f"{__name__}:Board", GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Board)
    Board.played = 0
    found = spike(network, inputs, device="ours", **SETTINGS)
    assert Board.played >= 30
    assert found.device.board == "Board"
    populations = found.memories[0].populations
    assert np.all(populations.gain_factors == 1.0)  # those of the board are unknown
    lab = VirtualDevice(LAB, seed=7)
    plain = spike(network, inputs, mismatch=0.0, calibration="none", **SETTINGS)
    assert error(network, found, inputs, lab) < 0.5 * error(network, plain, inputs, lab)


def test_the_virtual_chip_is_the_same_behind_the_interface(network, inputs):
    """A chip's own spikes, played and stepped, are those of the simulation of its network."""
    chip = spike(network, inputs, mismatch=0.3, calibration="none", **SETTINGS)
    device = VirtualChip(chip)
    block = Block("layer0/memory", chip.memories[0].populations, chip.neuron, chip.dt_ms)
    drive = np.random.default_rng(0).uniform(-1, 1, (40, 3, ORDER)).astype(np.float32)
    played = device.run(block, drive, [5])
    stepped = device.start(block, 3, np.random.default_rng([5]))
    np.testing.assert_array_equal(played, [stepped.step(x) for x in drive])
    default = run_hybrid(chip, inputs[:2], [0])
    again = run_hybrid(chip, inputs[:2], [0], device=VirtualDevice(chip.device, dtype=np.float64))
    np.testing.assert_array_equal(default.m[0], again.m[0])


def test_an_experiment_is_played_once_and_not_step_by_step(network, inputs):
    rng = np.random.default_rng(1)
    populations = make_populations(3, 9, LIF, (100.0, 200.0), rng)
    chip = Chip(populations, LIF, LAB, 1.0, 100.0, 3)
    seen = []

    class Playing(NeuronDevice):
        def run(self, block, drive, seed):
            seen.append(drive.shape)
            return VirtualDevice(LAB).run(block, drive, seed)

    def experiment(board):
        neurons = dataclasses.replace(chip, board=board).neurons(2, None)
        return [neurons.step(np.full((2, 3), 0.1 * k)) for k in range(10)]

    found = play(Playing(), chip.block, 10, [3], experiment)
    drive = np.repeat(0.1 * np.arange(10, dtype=np.float32), 6).reshape(10, 2, 3)
    np.testing.assert_array_equal(found, VirtualDevice(LAB).run(chip.block, drive, [3, 0]))
    assert seen == [(10, 2, 3)]


def test_a_network_of_a_device_is_not_simulated_as_another_chip(network, inputs, session, tmp_path):
    path, _ = session
    found = from_file(network, inputs, path)
    save(found, tmp_path / "lab.safetensors")
    assert load(tmp_path / "lab.safetensors", SPIKING_CLASSES).device.board == "session.npz"
    with pytest.raises(InputError, match=r"calibrated for device session\.npz.*run it on that"):
        Brian2Target().run(found, inputs)
    with pytest.raises(InputError, match=r"calibrated for device session\.npz.*pass the device"):
        run_hybrid(found, inputs, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, r"run 0 of session\.npz has gains that differ by"),
        ({"neurons_per_state": 10}, r"populations and neurons \(4, 20\), and .* needs \(4, 10\)"),
        ({"calibration_samples": 9}, r"run 1 .* steps, trials and states \(240, 30, 4\)"),
        ({"calibration": "static"}, r"run 1 .* steps, trials and states"),
        ({"units": "chip"}, r"of a device, only memories are calibrated"),
    ],
)
def test_other_currents_than_the_recorded_are_refused(network, inputs, session, changes, message):
    with pytest.raises(InputError, match=message):
        from_file(network, inputs, session[0], **changes)


def damaged(path, out, **changes):
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, change in changes.items():
        key = name.replace("_", ".", 1)
        arrays[key] = change(arrays.get(key))
        if arrays[key] is None:
            del arrays[key]
    np.savez(out, **arrays)
    return out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"0_spikes": lambda a: a[..., :-1]}, r"spikes has shape .* belongs to the other arrays"),
        ({"0_spikes": lambda a: a.astype(np.int8)}, "pack the bits"),
        ({"0_drive": lambda a: a * np.nan}, "finite"),
        ({"0_gains": lambda a: a.astype(object)}, "no readable .npz file of plain arrays"),
        ({"0_gains": lambda a: a[0]}, "2-dimensional"),
        ({"0_dt_ms": lambda _: np.array(0.0)}, "dt_ms is no duration"),
        ({"0_place": lambda _: np.array(1)}, "place is no text"),
        ({"1_drive": lambda _: None}, "lacks the array drive"),
        ({"7_drive": lambda _: np.zeros((1, 1, 1))}, "numbered from 0"),
        ({"0_other": lambda _: np.zeros(1)}, "no array of a session"),
    ],
)
def test_wrong_session_files_are_refused(session, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        RecordedDevice.load(damaged(session[0], tmp_path / "wrong.npz", **changes))
    assert "\n" not in str(caught.value)


def test_sizes_are_checked_before_arrays_are_read(session, tmp_path, monkeypatch):
    """A header that announces more than the file holds, and an archive that unpacks to too much."""
    huge = tmp_path / "huge.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }\n"
    with zipfile.ZipFile(huge, "w") as archive:
        magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr("0.spikes.npy", magic + header)
    with pytest.raises(InputError, match="unpacks to 1099511627776 bytes"):
        RecordedDevice.load(huge)
    monkeypatch.setattr("converters.spiking.device.LARGEST_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000 do"):
        RecordedDevice.load(session[0])


def test_unknown_devices_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown device 'chip'; choose one of virtual"):
        open_device("chip")
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        open_device(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"no readable \.npz file"):
        open_device(tmp_path / "text.npz")
    assert device_for(None, "generic-analog", SpikeOptions()) is None


def test_a_device_that_returns_other_shapes_is_refused(network, inputs):
    class Short(Board):
        def run(self, block, drive, seed):
            return super().run(block, drive, seed)[:-1]

    with pytest.raises(InputError, match="device Short returned spikes of shape"):
        spike(network, inputs, device=Short(), **SETTINGS)


class Broken(VirtualDevice):
    """A chip with one dead population, and some dead and stuck neurons elsewhere."""

    def populations(self, block):
        made = super().populations(block)
        faults = np.zeros(made.encoders.shape)
        faults[2], faults[0, :3], faults[1, :3] = -1.0, -1.0, 1.0
        return dataclasses.replace(made, faults=faults)


def test_examination_finds_dead_and_stuck_neurons():
    populations = make_populations(4, 20, LIF, (100.0, 200.0), np.random.default_rng(5))
    chip = Chip(populations, LIF, LAB, 1.0, 100.0, 4, Broken(LAB, seed=7))
    health = examine(chip, [1])
    assert health.dead == [2]
    assert health.silent[0, :3].all() and health.stuck[1, :3].all()
    assert health.silent[2].all() and health.silent[3].mean() < 0.1
    assert not examine(dataclasses.replace(chip, board=None), [1]).dead


@pytest.mark.parametrize("method", ["static", "dynamic"])
def test_a_dead_population_is_worked_around_and_named(network, inputs, method, caplog):
    """No NaN, no weight from the dead population, its place in file and log, and a better chip."""
    device = Broken(LAB, seed=7)
    with caplog.at_level(logging.WARNING), np.errstate(all="raise", under="ignore"):
        found = spike(network, inputs, device=device, calibration=method, **SETTINGS)
    assert found.calibration.dead == ("layer0/memory/population2",)
    assert "no neuron of layer0/memory/population2 follows its drive" in caplog.text
    weights = found.memories[0].weights.reshape(ORDER, ORDER, 20)
    assert np.isfinite(weights).all()
    assert np.abs(weights[:, 2]).max() < 1e-9 < np.abs(weights[:, [0, 1, 3]]).max()
    if method == "dynamic":
        whole = spike(network, inputs, device=VirtualDevice(LAB, seed=7), **SETTINGS)
        around = error(network, found, inputs, device)
        assert around < 0.7 * error(network, whole, inputs, device)


def test_a_dead_population_of_static_decoders_is_zero():
    """The regression of a population without a spike has no NaN, which spread to all weights."""
    populations = make_populations(2, 6, LIF, (100.0, 200.0), np.random.default_rng(5))
    faults = np.zeros((2, 6))
    faults[1] = -1.0
    chip = Chip(dataclasses.replace(populations, faults=faults), LIF, LAB, 1.0, 100.0, 2)
    found = static(chip, np.ones((1, 2, 2)), np.random.default_rng(0))
    assert np.isfinite(found.weights).all() and np.isfinite(found.error)
    assert np.all(found.weights[..., 6:] == 0.0) and np.all(np.any(found.weights[..., :6], axis=-1))
