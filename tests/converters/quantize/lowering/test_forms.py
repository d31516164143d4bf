"""Forms: composed matrices give what the operators give, frame by frame."""

import numpy as np
import pytest

from converters.quantize.calibration import Signal
from converters.quantize.connections import Source
from converters.quantize.lowering.forms import Form, added, concatenated
from lmu_deploy.core.graph.linear import Conv1d
from lmu_deploy.core.integer.parts import Format, Place


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def source(name, rng, samples=2, frames=11, n=3):
    """Return a population of random values."""
    values = rng.normal(size=(samples, frames, n)).astype(np.float32)
    signal = Signal(float(np.abs(values).max()), values.reshape(-1, n), values)
    return Source(signal, Format(8, 0.1), "--hidden-bits", None, Place(name))


def values_of(form, frames):
    """Evaluate a form from its definition."""
    found = 0.0 if form.bias is None else form.bias
    for term in form.terms:
        x = term.source.signal.sequences.astype(np.float64)
        rows = []
        for n in range(frames):
            taps = [
                x[:, m] if 0 <= (m := term.stride * n + offset) < x.shape[1] else 0 * x[:, 0]
                for offset in term.offsets
            ]
            rows.append(np.concatenate(taps, axis=1) @ term.dense.T)
        found = found + np.stack(rows, axis=1)
    return found


def test_a_sum_merges_terms_of_one_source(rng):
    x, y = source("x", rng), source("y", rng)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    one = Form.of(x).through(a, rng.normal(size=4))
    other = added([Form.of(x).through(b), Form.of(y).through(a)])
    both = added([one, other])
    assert [term.source.place for term in both.terms] == [Place("x"), Place("y")]
    np.testing.assert_allclose(values_of(both, 11), values_of(one, 11) + values_of(other, 11))


def test_concatenation_keeps_the_order_of_values(rng):
    x, y = source("x", rng), source("y", rng, n=2)
    one, other = Form.of(x), Form.of(y).through(rng.normal(size=(4, 2)), rng.normal(size=4))
    both = concatenated([one, other])
    expected = np.concatenate([values_of(one, 11), values_of(other, 11)], axis=2)
    np.testing.assert_allclose(values_of(both, 11), expected)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 0), (1, 1), (3, 2)])
def test_a_convolution_over_a_form_is_that_over_its_values(rng, stride, left, right):
    x = source("x", rng)
    form = Form.of(x).through(rng.normal(size=(5, 3)))
    kernel = rng.normal(size=(3, 5, 4)).astype(np.float32)
    operator = Conv1d(kernel, None, stride, 1, 1, left, right)
    taps = {k - left: tap.T.astype(np.float64) for k, tap in enumerate(kernel)}
    found = form.convolved(taps, None, stride, right)
    expected = operator.forward(values_of(form, 11))
    np.testing.assert_allclose(values_of(found, expected.shape[1]), expected, atol=1e-12)


def test_two_convolutions_compose_without_padding(rng):
    x = source("x", rng, frames=17)
    first = {k: rng.normal(size=(4, 3)) for k in range(3)}
    second = {k: rng.normal(size=(2, 4)) for k in range(2)}
    bias = rng.normal(size=4)
    inner = Form.of(x).convolved(first, bias, 2, 0)
    assert inner.foldable(padded=False)
    assert not inner.foldable(padded=True)
    outer = inner.convolved(second, None, 2, 0)
    steps = values_of(inner, 8)
    expected = sum(steps[:, k : k + 7 : 2][:, :4] @ tap.T for k, tap in second.items())
    np.testing.assert_allclose(values_of(outer, 4), expected, atol=1e-12)


def test_what_a_term_reads_is_what_its_source_sends(rng):
    x = source("x", rng)
    form = Form.of(x).convolved({-1: np.eye(3), 1: np.eye(3)}, None, 2, 1)
    (term,) = form.terms
    read = term.reading()
    assert read.signal.sequences.shape == (2, 6, 6)
    product = read.signal.sequences.astype(np.float64) @ term.dense.T
    np.testing.assert_allclose(product, values_of(form, 6))
