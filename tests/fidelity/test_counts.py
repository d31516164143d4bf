"""Events, sizes, equality, hashes and excerpts, all of which are exact."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.layered import (
    IntegerHidden,
    IntegerLayer,
    IntegerMemory,
    IntegerReadout,
    LayeredNetwork,
)
from lmu_deploy.core.integer.parts import Connection, Format
from lmu_deploy.core.spiking.chip import Calibration, Device, NeuronModel, Populations
from lmu_deploy.core.spiking.network import SpikingMemory, SpikingNetwork
from lmu_deploy.fidelity.assemble import hash_array, hash_file, versions
from lmu_deploy.fidelity.measures.agreement import compare_states, is_integer
from lmu_deploy.fidelity.measures.events import (
    RasterExcerpt,
    count_intervals,
    count_population,
    excerpt,
    silent_neurons,
)
from lmu_deploy.fidelity.measures.sizes import network_sizes
from targets.base import States


def test_events_are_counted(rng):
    counts = rng.integers(0, 9, (30, 4))
    classes = rng.integers(0, 3, 30)
    found = count_population(counts, neurons=5, classes=classes)
    assert found.total == counts.sum()
    assert found.per_sample == pytest.approx(counts.sum() / 30)
    assert found.rate == pytest.approx(counts.sum() / (30 * 4 * 5))
    assert found.by_step == pytest.approx(counts.sum(axis=0) / 30)
    for label in range(3):
        assert found.by_class[label] == pytest.approx(
            np.mean([row.sum() for row, c in zip(counts, classes, strict=True) if c == label])
        )
    assert found.silent is None


def test_totals_do_not_overflow():
    counts = np.full((3, 2), 2**30, dtype=np.int32)
    assert count_population(counts).total == 6 * 2**30


def test_silent_neurons():
    raster = np.zeros((6, 4), np.uint8)
    raster[2, 1] = raster[5, 3] = 1
    assert silent_neurons(raster) == 2
    assert count_population(np.ones((1, 6), int), 4, raster).silent == 2


def _integer_network():
    def connection(n_slices, rows, columns, bits=8):
        slices = np.ones((n_slices, rows, columns), np.int8)
        slices[:, 0, 0] = 0
        ones = np.ones((n_slices, rows), np.int32)
        return Connection(slices, ones, ones, weight_bits=bits)

    memory = IntegerMemory(
        state=Format(24, 2.0**-21),
        message=Format(12, 2.0**-9),
        message_shift=12,
        recurrent=connection(2, 6, 6),
        input=connection(1, 6, 2),
        hidden=None,
        bias=None,
    )
    lines = PiecewiseLinear(np.ones(8, np.int32), np.zeros(8, np.int32), 0, "odd")
    hidden = IntegerHidden(
        drive=Format(24, 1.0),
        message=Format(8, 1.0),
        memory=connection(1, 3, 6, bits=4),
        input=None,
        recurrent=None,
        bias=np.zeros(3, np.int32),
        activation=lines,
    )
    readout = IntegerReadout(connection(1, 2, 3), None, Format(24, 1.0))
    return LayeredNetwork(Format(8, 1.0), (IntegerLayer(memory, hidden),), readout).graph()


def test_integer_sizes_have_the_widths_of_the_chip():
    sizes = network_sizes(_integer_network())
    weights = 2 * 36 + 12 + 18 + 6
    assert sizes.synapses == weights - (2 + 1 + 1 + 1)
    assert sizes.weight_bytes == 2 * 36 + 12 + 18 // 2 + 6
    rows = 2 * 6 + 6 + 3 + 2
    assert sizes.parameters == weights + 2 * rows + 3 + 16
    assert sizes.neuron_bytes == -(-(rows * 20 + 3 * 24 + 8 * 39) // 8)
    assert sizes.state_bytes == 6 * (24 + 12) // 8 + 3


def test_spiking_sizes_cover_the_part_on_neurons(digits):
    states, neurons, rng = 48, 5, np.random.default_rng(0)
    ones = np.ones((states, neurons))
    weights = rng.normal(size=(8, 6, 6 * neurons))
    weights[0, 0, 0] = 0.0
    memory = SpikingMemory(
        Populations(ones, ones, ones, ones, ones), np.eye(6), np.ones(6), np.ones((8, 6)), weights
    )
    for bits, width in ((0, 32), (6, 6)):
        network = SpikingNetwork(
            host=as_layers(digits.network, "test"),
            memories=(memory,),
            neuron=NeuronModel("lif", 20.0, 2.0),
            device=Device("generic-analog", 0, 0.1, 0.0, bits),
            calibration=Calibration("none", 0, 8, 1e-2, 0.1),
            dt_ms=1.0,
            tau_ms=100.0,
            presentation_ms=50.0,
        )
        sizes = network_sizes(network)
        assert sizes.parameters == weights.size + 2 * states * neurons
        assert sizes.synapses == weights.size - 1
        assert (sizes.weight_bits, sizes.weight_bytes) == (width, weights.size * width // 8)
        assert sizes.state_bytes == 4 * (states * neurons + states)


def test_float_sizes(digits):
    sizes = network_sizes(digits.network)
    weights = 8 * 8 + 6 * 6 + 6 + 48 * 32 + 8 * 32 + 32 * 10
    assert sizes.weight_bytes == 4 * weights
    assert sizes.parameters == weights + 32 + 10 == digits.network.n_parameters + 36 + 6
    assert sizes.state_bytes == 4 * (48 + 32)
    assert network_sizes(object()) is None


def _states(m):
    return States(m, np.zeros((*m.shape[:2], 2), np.int32), np.zeros((*m.shape[:2], 1), np.int32),
                  np.ones(m.shape[2]), np.ones(2))  # fmt: skip


def test_equal_integers_are_equal(rng):
    m = rng.integers(-9, 9, (5, 4, 3))
    assert is_integer(_states(m))
    assert not is_integer(_states(m * 1.0))
    assert not is_integer(None)
    found = compare_states(_states(m), _states(m[:2]))
    assert found.equal
    assert (found.samples, found.steps, found.values) == (2, 4, 2 * 4 * 6)


def test_the_first_difference_in_time_is_named(rng):
    m = rng.integers(-9, 9, (5, 4, 3))
    other = m.copy()
    other[0, 3, 0] += 1
    other[4, 1, 2] += 1
    found = compare_states(_states(m), _states(other))
    assert not found.equal
    assert found.different == 2
    assert found.first == "m[2] at step 1 of sample 4"
    late = replace(_states(m), y=np.ones((5, 4, 1), np.int32))
    assert compare_states(late, _states(m)).first == "y[0] at step 0 of sample 0"


def test_integers_are_compared_when_the_host_computes_other_columns(rng):
    """The host computed three of the five columns of h, and the readout."""
    m, chip = rng.integers(-9, 9, (5, 4, 3)), rng.integers(-9, 9, (5, 4, 2))
    h = np.concatenate([rng.random((5, 4, 3)), chip], axis=2)
    on_host = np.array([True, True, True, False, False])
    mixed = replace(_states(m), h=h, y=rng.random((5, 4, 1)), h_on_host=on_host)
    found = compare_states(mixed, mixed)
    assert found.equal
    assert found.values == 5 * 4 * (3 + 2)
    assert found.compared == ("m", "h (2 of 5 columns)")
    assert found.on_host == ("h (3 of 5 columns)", "y")
    spoilt = h.copy()
    spoilt[1, 2, 4] += 1
    found = compare_states(mixed, replace(mixed, h=spoilt))
    assert (found.equal, found.different) == (False, 1)
    assert found.first == "h[4] at step 2 of sample 1"
    spoilt[1, 2] = h[1, 2] + 1e-12 * on_host
    assert compare_states(mixed, replace(mixed, h=spoilt)).equal
    # What one target holds in integers, and another in floats, is compared.
    assert not compare_states(_states(m), replace(_states(m), y=np.full((5, 4, 1), 0.5))).equal


def test_all_of_a_chip_is_compared(rng):
    found = compare_states(*[_states(rng.integers(-9, 9, (5, 4, 3)))] * 2)
    assert (found.compared, found.on_host) == (("m", "h", "y"), ())


def test_other_shapes_are_not_equal(rng):
    m = rng.integers(-9, 9, (5, 4, 3))
    found = compare_states(_states(m), _states(m[:, :3]))
    assert not found.equal
    assert "shape" in found.first


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 30)), elements=st.integers(0, 1)),
    st.integers(1, 12),
    st.integers(0, 60),
    st.integers(1, 20),
)
def test_excerpts_keep_every_event_of_the_neurons_they_show(raster, neurons, events, bins):
    found = excerpt(raster, neurons, events, bins)
    again = RasterExcerpt.unpacked(found.packed())
    assert len(found.neurons) == len(set(found.neurons)) == min(neurons, raster.shape[1])
    assert (again.counts.sum(axis=1) == raster[:, again.neurons].sum(axis=0)).all()
    if found.exact:
        assert (again.counts == raster[:, again.neurons].T).all()
        assert found.counts.sum() <= events or len(raster) <= bins
    else:
        assert found.counts.shape[1] == bins


def test_hashes(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(b"abc")
    assert hash_file(file) == hashlib.sha256(b"abc").hexdigest()
    array = np.arange(6).reshape(2, 3)
    assert hash_array(array) == hash_array(array[::-1][::-1]) == hash_array(array.astype(">i8"))
    others = [array.T, array.astype(np.int32), array.reshape(3, 2), array + 1]
    assert len({hash_array(a) for a in [array, *others]}) == 5


def test_versions_name_the_libraries():
    assert {"python", "numpy", "scipy", "lmu-deploy"} <= set(versions())


def test_intervals_are_those_between_events_of_one_neuron():
    raster = np.zeros((40, 3), np.uint8)
    raster[[0, 1, 3, 6, 10, 15, 23, 32], 0] = 1  # 1, 2, 3, 4, 5, 8 and 9 steps apart
    raster[[5, 6], 1] = 1
    assert count_intervals(raster).tolist() == [2, 1, 2, 2, 1]
    assert count_intervals(raster[:, 2:]).tolist() == []
    assert count_intervals(raster[:1]).tolist() == []
    assert count_population(np.ones((2, 40), int)).intervals is None
