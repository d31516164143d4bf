"""Hidden units and readout on neurons: what reaches them, what they answer, where they can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.options import SpikeOptions
from converters.spiking import spike, spike_chips
from converters.spiking.recipe import keep_calibration
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import activate, run_reference
from lmu_deploy.core.spiking.network import SPIKING_CLASSES, why_on_host

STEPS, UNITS, STATES = 16, 5, 6


def network_of(activation="tanh", layers=1, **changes):
    rng = np.random.default_rng(7)

    def layer(n_in):
        kernels = {
            "memory_kernel": rng.normal(size=(STATES, UNITS)) * 0.8,
            "input_kernel": rng.normal(size=(n_in, UNITS)) * 0.3,
            "recurrent_kernel": None,
            "bias": rng.normal(size=UNITS) * 0.2,
        }
        hidden = Hidden(**{**kernels, "activation": activation, **changes})
        encoders = rng.normal(size=(n_in, 2)) / n_in
        return LMULayer(encoders, None, None, None, Memory.legendre(3, 12.0, 2), hidden)

    built = tuple(layer(2 if number == 0 else UNITS) for number in range(layers))
    return LMUNetwork(built, Readout(rng.normal(size=(UNITS, 3)), np.array([0.5, -1.0, 2.0])), True)


def signals(samples=30, seed=1):
    rng = np.random.default_rng(seed)
    t = np.arange(STEPS)[None, :, None]
    return np.sin(
        2 * np.pi * t / rng.uniform(8, 20, (samples, 1, 2)) + rng.uniform(0, 6, (samples, 1, 2))
    )


def spiking_of(network, **options):
    chosen = {"neurons_per_state": 30, "mismatch": 0.2, "weight_bits": 6, "presentation_ms": 20.0}
    chosen |= {"tau_ms": 20.0, "membrane_noise": 0.0, "units": "chip", **options}
    return spike(network, signals(), **chosen)


@pytest.fixture(scope="module")
def target():
    pytest.importorskip("brian2", reason="Brian2 is not installed")
    from targets.brian2 import Brian2Target

    return Brian2Target()


def relative(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_drives_are_what_the_states_give(target, activation):
    """With real weights z is Z^-1 K^T S x at every moment, mismatch or not; i is x W_x + b."""
    network = network_of(activation)
    inputs = signals(4, seed=2)
    run = target.run(spiking_of(network, weight_bits=0), inputs, record=True)
    hidden = network.layers[0].hidden
    drives = run.states.m @ hidden.memory_kernel + inputs @ hidden.input_kernel + hidden.bias
    np.testing.assert_allclose(run.states.h, activate(activation, drives), atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_calibration_reduces_the_error_of_mismatch(target, activation):
    network, inputs = network_of(activation), signals(12, seed=3)
    true = run_reference(network, inputs).outputs[:, 4:]
    none, static, dynamic = (
        relative(target.run(spiking_of(network, calibration=method), inputs).outputs[:, 4:], true)
        for method in ("none", "static", "dynamic")
    )
    assert dynamic < 0.9 * static and static < none
    many = spiking_of(network, mismatch=0.0, weight_bits=0, neurons_per_unit=200)
    assert relative(target.run(many, inputs).outputs[:, 4:], true) < 0.9 * dynamic


def test_what_units_do_is_counted(target):
    spiking = spiking_of(network_of())
    run = target.run(spiking, signals(3, seed=4))
    units, memory = spiking.units, spiking.memories[0]
    assert run.neurons == {"layer0/memory": 180, "layer0/hidden": 100}
    assert spiking.neurons == 280
    raster = run.rasters["layer0/hidden"]
    assert raster.sum() == run.events["layer0/hidden"][0].sum() > 0
    one = target.run(spiking, signals(3, seed=4)[:1])
    from_memory = one.rasters["layer0/memory"].sum(axis=0)
    expected = from_memory @ (memory.synapses + 20 * (units.drive != 0).sum(axis=0))
    expected += one.rasters["layer0/hidden"].sum(axis=0) @ (units.decoders != 0).sum(axis=0)
    assert one.synops == expected
    assert any("hidden units and the readout ran on spiking neurons" in n for n in run.notes)
    assert run.settings["neurons_per_unit"] == 20


def test_results_do_not_depend_on_batches_or_other_samples(target, monkeypatch):
    network, inputs = network_of(), signals(5, seed=5)
    chips = [spiking_of(network, chip_seed=seed, membrane_noise=0.0) for seed in (3, 4)]
    alone = [target.run(chip, inputs, record=True, seed=2) for chip in chips]
    together = target.run_chips(chips, inputs, record=True, seed=2)
    monkeypatch.setattr("targets.brian2.target._MOST_SAMPLES", 2)
    in_parts = target.run(chips[0], inputs, record=True, seed=2)
    for found, expected in zip([*together, in_parts], [*alone, alone[0]], strict=True):
        assert (found.outputs == expected.outputs).all()
        assert (found.states.h == expected.states.h).all()
        assert found.synops == expected.synops
    made = spike_chips(
        network,
        signals(),
        "generic-analog",
        [3, 4],
        SpikeOptions(
            neurons_per_state=30,
            mismatch=0.2,
            weight_bits=6,
            presentation_ms=20.0,
            tau_ms=20.0,
            units="chip",
        ),
    )
    for one, other in zip(made, chips, strict=True):
        assert (one.units.decoders == other.units.decoders).all()
        assert (one.units.drive == other.units.drive).all()


def test_weights_have_the_bits_of_the_chip():
    units = spiking_of(network_of(), weight_bits=4).units
    for weights in (units.drive, units.decoders):
        steps = weights / np.abs(weights).max(axis=1, keepdims=True) * 7
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)


def test_a_deep_network_has_its_last_units_on_the_chip(target):
    network, inputs = network_of(layers=2), signals(6, seed=6)
    spiking = spiking_of(network)
    run = target.run(spiking, inputs, record=True)
    assert list(run.neurons) == ["layer0/memory", "layer1/memory", "layer1/hidden"]
    true = run_reference(network, inputs).outputs[:, 4:]
    assert relative(run.outputs[:, 4:], true) < 0.35
    assert any("other layers ran on the host" in note for note in run.notes)


def test_files_and_saved_calibrations_keep_units(tmp_path):
    network = network_of()
    spiking = spiking_of(network)
    save(spiking, tmp_path / "chip.safetensors")
    again = load(tmp_path / "chip.safetensors", SPIKING_CLASSES)
    assert (again.units.decoders == spiking.units.decoders).all()
    kept = keep_calibration(spiking)
    used = spiking_of(network, saved=kept)
    assert (used.units.drive == spiking.units.drive).all()
    with pytest.raises(InputError, match="for neurons of a hidden unit 20, and 0 is requested"):
        spiking_of(network, saved=kept, units="host")


def test_units_stay_on_the_host_where_they_must():
    plain = network_of()
    last, rng = plain.layers[0], np.random.default_rng(0)
    recurrent = replace(last.hidden, recurrent_kernel=rng.normal(size=(UNITS, UNITS)))
    lstm = LSTMLayer(*(rng.normal(size=s) for s in ((UNITS, 20), (5, 20), (20,))))
    cases = {
        "recurrent": (replace(last, hidden=recurrent),),
        "feed back into the memory": (replace(last, hidden_encoders=rng.normal(size=(UNITS, 2))),),
        "activation is linear": network_of("linear").layers,
        "is an LSTM": (last, lstm),
    }
    for reason, layers in cases.items():
        network = LMUNetwork(layers, plain.readout, True)
        assert reason in why_on_host(network)
        assert spiking_of(network, units="auto", calibration="none").units is None
        with pytest.raises(InputError, match=f"cannot be on the chip: .*{reason}.*--units host"):
            spiking_of(network, calibration="none")
    bare = LMUNetwork((replace(last, hidden=None),), Readout(np.eye(STATES), None), True)
    assert "no hidden units" in why_on_host(bare)


def test_units_need_room_and_linear_synapses():
    with pytest.raises(InputError, match="dynapse2 has 1024; use --units host"):
        spiking_of(network_of(), profile="dynapse2", neurons_per_unit=200, calibration="none")
    small = spiking_of(network_of(), profile="dynapse2", units="auto", neurons_per_unit=200)
    assert small.units is None
    with pytest.raises(InputError, match="pairs of DPIs"):
        spiking_of(network_of(), synapse="dpi")
    with pytest.raises(InputError, match="units is 'board'"):
        spiking_of(network_of(), units="board")
    whole = spiking_of(network_of(), calibration="none")
    for name, wrong in (("drive", whole.units.drive[:, 1:]), ("input", whole.units.input[:, 1:])):
        with pytest.raises(InputError, match="the two must be equal"):
            replace(whole, units=replace(whole.units, **{name: wrong}))
