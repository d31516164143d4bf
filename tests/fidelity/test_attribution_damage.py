"""Damaged chips: the damaged population is named, with figures of the chip that ran."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converters.spiking import spike
from converters.spiking.neurons import VirtualDevice
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.chip import Device
from lmu_deploy.fidelity.attribution.chips import Chips, run_hybrid
from lmu_deploy.fidelity.attribution.spiking import attribute_spiking
from lmu_deploy.fidelity.attribution.switches import CALIBRATION, DAMAGE, MISMATCH
from lmu_deploy.fidelity.measures.agreement import deviation
from lmu_deploy.report.losses import REMEDIES
from lmu_deploy.tasks.base import Task

ORDER, STEPS, SAMPLES, WORN = 8, 20, 10, 6
TASK = Task("planted", "classification", 2, 3, STEPS, load=lambda: None)
SETTINGS = {
    "presentation_ms": 20.0,
    "neurons_per_state": 20,
    "mismatch": 0.2,
    "membrane_noise": 0.1,
    "units": "host",
    "seed": 1,
}


@pytest.fixture(scope="module")
def network():
    rng = np.random.default_rng(31)
    hidden = Hidden(rng.normal(size=(ORDER, 6)), None, None, None, "tanh")
    layer = LMULayer(
        np.array([[0.8], [0.4]]), None, None, None, Memory.legendre(ORDER, 20.0), hidden
    )
    return LMUNetwork((layer,), Readout(rng.normal(size=(6, 3)), None))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(32)
    return np.sin(np.linspace(0, 7, STEPS)[None, :, None] * rng.uniform(0.5, 2.0, (30, 1, 2)))


@pytest.fixture(scope="module")
def chip(network, inputs):
    return spike(network, inputs, **SETTINGS)


def with_change(chip, **arrays):
    """Return the network on its chip after something has happened to its neurons."""
    (memory,) = chip.memories
    populations = dataclasses.replace(memory.populations, **arrays)
    return dataclasses.replace(
        chip, memories=(dataclasses.replace(memory, populations=populations),)
    )


def row(value, fill):
    found = np.full((ORDER, SETTINGS["neurons_per_state"]), fill)
    found[WORN] = value
    return found


@pytest.fixture(scope="module")
def noisy(chip):
    return with_change(chip, noise_factors=row(10.0, 1.0))


@pytest.fixture(scope="module")
def dead(chip):
    return with_change(chip, faults=row(-1.0, 0.0))


def explain(network, chip, inputs, **changes):
    shown = inputs[:SAMPLES]
    targets = run_reference(network, shown).outputs.argmax(axis=1)
    chosen = {"samples": SAMPLES, "chips": Chips(chip, inputs), **changes}
    return attribute_spiking(chip, shown, targets, TASK, **chosen)


def output_error(network, chip, inputs):
    shown = inputs[:SAMPLES]
    return deviation(run_hybrid(chip, shown, [0]).y[:, -1], run_reference(network, shown).outputs)


@pytest.fixture(scope="module", params=["noisy", "dead"])
def explained(network, inputs, request):
    """A damaged chip, its attribution, and the chips of that."""
    broken = request.getfixturevalue(request.param)
    chips = Chips(broken, inputs)
    return broken, explain(network, broken, inputs, chips=chips), chips


def test_a_damaged_population_is_named_by_its_own_index(explained):
    _, found, _ = explained
    first = found.causes[0]
    assert (first.source, first.place) == (DAMAGE, f"layer0/memory/population{WORN}")
    assert first.share > 0.5
    # No healthy population is named as a cause.
    assert [c.place for c in found.causes if "population" in c.place] == [first.place]
    assert DAMAGE in REMEDIES


def test_what_a_new_calibration_would_take_away_is_measured_on_the_chip_that_ran(
    network, inputs, explained
):
    """Its share is that of this chip, calibrated again; that of an undamaged one is larger."""
    broken, found, chips = explained
    assert [step.source for step in found.steps][-2:] == [DAMAGE, CALIBRATION]
    whole = found.whole.output
    assert whole == output_error(network, broken, inputs)
    again = chips.recalibrated(broken)
    assert again.memories[0].populations is broken.memories[0].populations
    left = found.steps[-2].after.output
    assert left == output_error(network, again, inputs)
    promised = 1.0 - found.steps[-3].after.output ** 2 / whole**2
    kept = 1.0 - left**2 / whole**2
    assert kept < promised
    assert found.shares_in_turn()[-1] == pytest.approx(kept)
    for cause in found.causes:
        if cause.source == CALIBRATION:
            assert cause.share == pytest.approx(kept)


def test_the_share_of_the_damage_is_what_the_repaired_chip_does_better(network, inputs, explained):
    broken, found, chips = explained
    repaired = with_change(broken, noise_factors=None, faults=None)
    left = output_error(network, repaired, inputs)
    fresh = output_error(network, chips.fresh(), inputs)
    assert found.causes[0].output == pytest.approx(min(left, fresh))


def test_a_healthy_chip_has_no_damage(network, inputs, chip):
    found = explain(network, chip, inputs)
    sources = [step.source for step in found.steps]
    assert DAMAGE not in [*sources, *(cause.source for cause in found.causes)]
    for layer in Chips(chip, inputs).examined(chip).values():
        assert not layer.dead and not layer.noisy()


def test_a_damaged_device_is_explained_through_its_interface(network, inputs):
    """Neither the device's neurons nor its fault are in the file; only its spikes show it."""

    class Worn(VirtualDevice):
        def populations(self, block):
            factors = row(10.0, 1.0)
            return dataclasses.replace(super().populations(block), noise_factors=factors)

    parts = ("generic-analog", 0, 0.2, 0.1, 0)
    before, after = VirtualDevice(Device(*parts), seed=5), Worn(Device(*parts), seed=5)
    chip = spike(network, inputs, device=before, **SETTINGS)
    found = explain(network, chip, inputs, device=after)
    assert [step.source for step in found.steps][-2:] == [MISMATCH, CALIBRATION]
    assert found.whole.output == deviation(
        run_hybrid(chip, inputs[:SAMPLES], [0], device=after).y[:, -1],
        run_reference(network, inputs[:SAMPLES]).outputs,
    )
    named = {cause.place for cause in found.causes if "population" in cause.place}
    assert named == {f"layer0/memory/population{WORN}"}


@pytest.mark.parametrize("fault", ["noisy", "dead"])
@pytest.mark.parametrize("neuron", ["lif", "dpi"])
def test_brian2_and_the_simulator_agree_on_a_damaged_chip(network, inputs, fault, neuron):
    """Both have the damage, spike for spike."""
    pytest.importorskip("brian2", reason="Brian2 is not installed")
    from targets.brian2 import Brian2Target

    chosen = {**SETTINGS, "neuron": neuron, "calibration": "none", "tau_mismatch": 0.1}
    made = spike(network, inputs[:, :6], **chosen)
    change = {"noise_factors": row(10.0, 1.0)} if fault == "noisy" else {"faults": row(-1.0, 0.0)}
    broken = with_change(made, **change)
    shown = inputs[:2, :6]
    run = Brian2Target().run(broken, shown, record=True, seed=5)
    found = run_hybrid(broken, shown, [0], seed=5)
    assert (found.m[0] == run.states.m).all()
    assert (found.m[0] != run_hybrid(made, shown, [0], seed=5).m[0]).any()
    if fault == "dead":
        block = slice(WORN * 20, (WORN + 1) * 20)
        settled = 50  # a DPI neuron may start above its onset, and then spikes once
        assert not run.rasters["layer0/memory"][settled:, block].any()
