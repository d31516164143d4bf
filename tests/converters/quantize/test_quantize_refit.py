"""Kernels are fitted to the rounded memory, which never increases the error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layered import layered

from converters.options import QuantizeOptions
from converters.quantize import calibrate, quantize
from converters.quantize.connections import Source
from converters.quantize.realizations import refit_basis, rounded_signal, simulate_rounded
from converters.quantize.settings import settings_for
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.network import FLOAT_CLASSES, Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.base import get_task
from targets.integer import IntegerTarget

DIGITS = Path(__file__).parents[3] / "examples" / "models" / "digits.safetensors"


def network_of(rng, *, order=24, theta=40.0, recurrent=True, every_step=True):
    """A long memory with feedback, for which rounding to one slice matters."""
    units = 10
    hidden = Hidden(
        rng.normal(size=(order, units)) / np.sqrt(order),
        None,
        rng.normal(size=(units, units)) * 0.5 / np.sqrt(units) if recurrent else None,
        None,
        "tanh",
    )
    feedback = rng.normal(size=(units, 1)) * 0.1 if recurrent else None
    layer = LMULayer(
        np.ones((2, 1)),
        feedback,
        rng.normal(size=(order, 1)) * 0.02,
        None,
        Memory.legendre(order, theta),
        hidden,
    )
    return LMUNetwork((layer,), Readout(rng.normal(size=(units, 3)), None), every_step)


def memory_error(network, integer, inputs):
    truth = run_reference(network, inputs, record=True).m
    found = IntegerTarget().run(integer, inputs, record=True).states.real_m()
    return np.sqrt(np.sum((found - truth) ** 2) / np.sum(truth**2))


@pytest.mark.parametrize("realization", ["dense-incremental", "schur", "hessenberg"])
def test_the_fit_reduces_the_error_on_unseen_inputs(rng, realization):
    network = network_of(rng)
    signals = calibrate(network, rng.normal(size=(30, 160, 2)))
    unseen = rng.normal(size=(20, 160, 2))
    options = {"slices": 1, "message_bits": 14, "realization": realization}
    plain = quantize(network, signals, refit=False, **options)
    fitted = quantize(network, signals, **options)
    errors = [memory_error(network, integer, unseen) for integer in (plain, fitted)]
    assert errors[1] < 0.7 * errors[0]
    before, after = layered(plain).layers[0].memory, layered(fitted).layers[0].memory
    assert np.array_equal(before.recurrent.slices, after.recurrent.slices)
    assert not np.array_equal(
        layered(plain).layers[0].hidden.memory.slices,
        layered(fitted).layers[0].hidden.memory.slices,
    )


def test_a_nearly_exact_memory_keeps_its_basis(rng):
    """Integers of three slices are nearly exact, so the fit finds the nominal basis."""
    network = network_of(rng)
    signals = calibrate(network, rng.normal(size=(30, 160, 2)))
    fitted = quantize(network, signals, slices=3, message_bits=14, refit=True)
    np.testing.assert_allclose(layered(fitted).layers[0].memory.basis, np.eye(24), atol=1e-3)


def test_the_fit_is_the_default_for_one_slice(rng):
    network = network_of(rng)
    assert settings_for(network, "loihi2", QuantizeOptions(slices=1)).refits
    assert not settings_for(network, "loihi2", QuantizeOptions(slices=2)).refits
    assert not settings_for(network, "loihi2", QuantizeOptions(slices=1, refit=False)).refits
    assert settings_for(network, "loihi2", QuantizeOptions(slices=2, refit=True)).refits
    with pytest.raises(InputError, match="refit"):
        settings_for(network, "loihi2", QuantizeOptions(refit="yes"))


def test_the_basis_is_kept_if_there_is_nothing_to_fit(rng):
    network, inputs = network_of(rng), rng.normal(size=(30, 160, 2))
    signals = calibrate(network, inputs)
    integer = quantize(network, signals, slices=1, refit=False)
    memory, m = layered(integer).layers[0].memory, signals[Place("layer0", "memory")]
    h = Source(
        signals[Place("layer0", "hidden")],
        layered(integer).layers[0].hidden.message,
        "--hidden-bits",
    )

    def simulated(x=signals.x, m=m):
        return simulate_rounded(memory, Source(x, integer.input.message, "--input-bits"), m, h)

    usual, truth = simulated(), m.sequences.astype(np.float64)
    assert refit_basis(memory, usual, truth) is not None
    assert refit_basis(memory, usual[:1], truth[:1]) is None
    # A basis that fits only the first half of the sequences is rejected.
    misleading = truth.copy()
    misleading[: len(truth) // 2] *= 2.0
    assert refit_basis(memory, usual, misleading) is None
    assert simulated(m=replace(m, sequences=m.sequences[:0])) is None
    assert simulated(m=replace(m, sequences=0.0 * m.sequences)) is None
    assert simulated(x=replace(signals.x, sequences=1e9 * signals.x.sequences)) is None


def test_messages_cover_the_range_of_a_rounded_memory(rng):
    """With 4 bits the matrix responds more strongly than the true one, and nothing saturates."""
    network = network_of(rng, order=32, theta=60.0, recurrent=False, every_step=False)
    inputs = rng.normal(size=(60, 160, 2))
    signals = calibrate(network, inputs)
    integer = quantize(network, signals, slices=1)
    memory = layered(integer).layers[0].memory
    h = Source(
        signals[Place("layer0", "hidden")],
        layered(integer).layers[0].hidden.message,
        "--hidden-bits",
    )
    rounded = simulate_rounded(
        memory,
        Source(signals.x, integer.input.message, "--input-bits"),
        signals[Place("layer0", "memory")],
        h,
    )
    widest = np.abs(rounded).max()
    assert rounded_signal(signals[Place("layer0", "memory")], rounded).largest >= widest
    assert memory.message.scale * memory.message.limit >= widest
    run = IntegerTarget().run(integer, inputs)
    assert run.saturations["layer0/memory/state"] == 0


def test_digits_in_one_slice():
    network = load(DIGITS, FLOAT_CLASSES)
    data = get_task("digits").load()
    signals = calibrate(network, data.train.inputs[:512])
    errors = [
        memory_error(network, quantize(network, signals, slices=1, refit=r), data.test.inputs)
        for r in (False, True)
    ]
    assert errors[1] < errors[0]
