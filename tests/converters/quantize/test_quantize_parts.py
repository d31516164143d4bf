"""The parts of a quantization: slices, activations, formats and accumulators."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.quantize.calibration import Signal, clip_range
from converters.quantize.connections import (
    AccumulatorNeed,
    connect,
    fit_accumulators,
    largest_sliced,
    row_bits,
    split_digits,
)
from converters.quantize.formats import GUARD_BITS, drive_format, evaluate, input_format, piecewise
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.parts import Format, largest
from lmu_deploy.core.reference import activate


@given(
    slices=st.integers(1, 3),
    weight_bits=st.integers(3, 8),
    fractions=st.lists(st.floats(-1, 1), max_size=20),
)
def test_digits_restore_the_integer_and_fit(slices, weight_bits, fractions):
    limit = largest_sliced(slices, weight_bits)
    integers = np.array([0, limit, -limit, *(round(f * limit) for f in fractions)])
    digits = split_digits(integers, slices, weight_bits)
    base = 2 ** (weight_bits - 1)
    back = sum(digits[k] * base ** (slices - 1 - k) for k in range(slices))
    assert np.array_equal(back, integers)
    assert np.abs(digits).max() <= largest(weight_bits)


def test_the_range_of_two_slices_is_that_of_the_specification():
    assert largest_sliced(2, 8) == 127 * 128 + 63


@given(
    seed=st.integers(0, 10_000),
    slices=st.integers(1, 3),
    weight_bits=st.integers(4, 8),
    scales=st.sampled_from(["power-of-two", "free"]),
)
def test_a_connection_approximates_its_matrix(seed, slices, weight_bits, scales):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(7, 5)) * np.exp2(rng.uniform(-6, 3, (7, 1)))
    matrix[3] = 0.0
    c = connect(matrix, slices=slices, weight_bits=weight_bits, scales=scales)
    gain = c.multiplier * np.exp2(-c.shift.astype(float))
    stands_for = (c.slices * gain[:, :, None]).sum(axis=0)
    step = gain[-1]
    assert np.all(np.abs(stands_for - matrix) <= 0.5001 * step[:, None])
    widest = np.abs(matrix).max(axis=1)
    coarse = 2.0 if scales == "power-of-two" else 1.0 + 2.0 / c.multiplier[-1]
    finest = coarse * widest / largest_sliced(slices, weight_bits)
    assert np.all(step <= np.where(widest > 0.0, np.maximum(finest, 2.0**-31), 1.0))
    powers = c.multiplier & (c.multiplier - 1)
    assert scales == "free" or not powers.any()


def test_rows_that_end_exactly_at_the_limit_are_not_clipped():
    limit = largest_sliced(2, 8)
    matrix = np.array([[limit, -1.0], [limit + 0.4, 1.0], [2.0 * limit, 1.0]])
    c = connect(matrix, slices=2)
    assert c.shift[1].tolist() == [0, 0, 0]
    assert c.multiplier[1].tolist() == [1, 1, 2]


def test_too_large_a_weight_is_refused():
    with pytest.raises(InputError, match="too large for 1 slices of 8 bits"):
        connect(np.array([[1e8]]), slices=1)


def test_a_row_below_the_smallest_gain_becomes_zero():
    assert not connect(np.full((1, 3), 1e-30), slices=2).slices.any()


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "hard-tanh"])
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_an_integer_activation_approximates_the_real_one(name, bits):
    message = Format(bits, 1.0 / largest(bits))
    drive = drive_format(message, 24)
    edge = 0.99 if name == "linear" else 6.0
    z = np.linspace(-edge / drive.scale, edge / drive.scale, 5001).astype(np.int64)
    truth = activate(name, z * drive.scale).clip(-1.0, 1.0)
    activation = piecewise(name, message)
    error = np.abs(evaluate(activation, z, bits) * message.scale - truth)
    rounding = 0.51 * message.scale
    if name == "tanh":  # of intercepts and slopes too, and interpolation errs as 1 / pieces^2
        slopes = 4.0 * 2.0**-16
        rounding = 1.01 * message.scale + slopes + 0.31 / len(activation.slope) ** 2
    assert error.max() <= rounding


def test_tanh_takes_eight_lines_at_eight_bits_and_is_monotone():
    activation = piecewise("tanh", Format(8, 1.0 / 127))
    assert len(activation.slope) == 8
    h = evaluate(activation, np.arange(-(6 * 127 << GUARD_BITS), 6 * 127 << GUARD_BITS), 8)
    assert np.all(np.diff(h) >= 0)
    assert h.max() == 127
    assert h.min() == -127


@pytest.mark.parametrize(
    ("values", "bits", "step"),
    [
        (np.arange(17) / 16, 8, 1 / 16),
        (np.arange(256) / 255, 12, 1 / 255),
        (np.array([0.0, 3.0, 5.0]), 8, 1.0),
        (np.array([-0.6, 0.4, 1.0]), 4, 0.2),
    ],
)
def test_inputs_on_a_grid_become_exact(values, bits, step):
    signal = Signal(float(np.abs(values).max()), values[:, None].astype(np.float32))
    found = input_format(signal, bits)
    assert found.scale == pytest.approx(step, rel=1e-5)
    assert np.allclose(np.rint(values / found.scale) * found.scale, values, atol=1e-6)


def test_inputs_that_are_not_on_a_grid_cover_their_range(rng):
    values = rng.normal(size=(500, 2)).astype(np.float32)
    signal = Signal(float(np.abs(values).max()), values)
    found = input_format(signal, 8)
    assert signal.largest <= found.limit * found.scale <= 1.1 * signal.largest
    fine = np.arange(256)[:, None] / 255
    assert input_format(Signal(1.0, fine), 8).scale > 1 / 127 * 0.99


def test_clip_ranges(rng):
    rows = rng.normal(size=(20_000, 1)).astype(np.float32)
    rows[0] = 40.0
    signal = Signal(40.0, rows)
    assert clip_range(signal, "max", 8) == pytest.approx(42.0)
    assert 3.0 < clip_range(signal, "percentile", 8) < 6.0
    assert clip_range(signal, "mse", 4) < clip_range(signal, "mse", 8) <= 40.0
    assert clip_range(Signal(0.0, np.zeros((3, 1))), "mse", 8) > 0.0
    with pytest.raises(InputError, match="max, mse, percentile"):
        clip_range(signal, "median", 8)


def test_accumulator_bits_are_proven_where_bounds_suffice(rng):
    c = connect(rng.normal(size=(4, 6)), slices=1)
    messages = rng.integers(-2047, 2048, (3000, 6)).astype(np.float32)
    bits, proven = row_bits(c, 2047, messages)
    assert proven.all()
    sums = np.abs(c.slices.astype(np.int64).sum(axis=0) @ messages.astype(np.int64).T).max()
    assert 2.0 ** (bits.max() - 1) >= sums


def test_accumulators_that_bounds_cannot_prove_are_measured(rng):
    messages = rng.normal(size=(3000, 300)) * 300
    matrix = rng.normal(size=(4, 300))
    c, needs, _ = fit_accumulators(
        lambda coarser: connect(matrix, coarser=coarser), 4, 2047, messages
    )
    worst = np.abs(messages @ c.slices[0].astype(float).T).max()
    assert not needs[0].proven
    assert np.log2(worst) + 1 < needs[0].bits < np.log2(worst) + 2
    assert str(needs[0]).endswith("bits, measured")


def test_rows_are_made_coarser_until_their_sums_fit(rng):
    matrix = rng.normal(size=(4, 300))
    messages = np.abs(rng.normal(size=(3000, 300))) * 300

    def make(coarser):
        return connect(np.abs(matrix), accumulator_bits=22, coarser=coarser)

    before, _ = row_bits(make(np.zeros(4, int)), 2047, messages)
    assert before.max() > 22
    connection, needs, _ = fit_accumulators(make, 4, 2047, messages)
    assert needs[0].bits <= 22
    assert np.abs(connection.slices).max() < 127


def test_bits_just_above_a_limit_are_not_shown_as_the_limit():
    assert AccumulatorNeed(0, 24.02, proven=True).shown == "24.1"
    assert AccumulatorNeed(0, 24.0, proven=True).shown == "24.0"
