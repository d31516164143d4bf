"""The hybrid simulator at both extremes: equal to the integer target, and equal to float."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graphs import runs
from hypothesis import HealthCheck, Phase, assume, find, given, settings
from hypothesis import strategies as st
from layered import layered, relayered

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.frames import LayerNorm
from lmu_deploy.core.graph.linear import Affine, Conv1d, Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation, Multiply
from lmu_deploy.core.graph.recurrent import GRU, LSTM
from lmu_deploy.core.graph.time import Pool, Reduce
from lmu_deploy.core.integer.gated import GRUUnits, LSTMUnits
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import HostNodes
from lmu_deploy.core.integer.populations import Output, Pointwise, Product
from lmu_deploy.core.integer.reductions import Maximum, Reduction
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.attribution.counterpart import float_counterpart
from lmu_deploy.fidelity.attribution.simulator import HybridSimulator
from lmu_deploy.fidelity.attribution.switches import SOURCES, Switches, Tally, sources
from targets.integer import IntegerTarget

FORMS = ("dense-incremental", "schur", "hessenberg", "sign-taylor", "fir")


def make(seed, *, form="dense-incremental", units=6, activation="tanh", feedback=True, layers=1):
    """Return a float network with all features that `form` supports, and suitable inputs."""
    rng = np.random.default_rng(seed)
    feedback = feedback and form != "fir"
    made, n_in = [], 2
    for _ in range(layers):
        memory = Memory.legendre(5, 16.0, 2)
        hidden = None
        if units:
            hidden = Hidden(
                rng.normal(size=(10, units)) / 3.0,
                rng.normal(size=(n_in, units)) / n_in,
                rng.normal(size=(units, units)) * 0.3 / units**0.5,
                rng.normal(size=units) * 0.2,
                activation,
            )
        made.append(
            LMULayer(
                rng.normal(size=(n_in, 2)) / n_in**0.5,
                rng.normal(size=(units, 2)) * 0.1 if feedback and units else None,
                rng.normal(size=(10, 2)) * 0.02 if feedback else None,
                rng.normal(size=2) * 0.1 if feedback else None,
                memory,
                hidden,
            )
        )
        n_in = made[-1].n_out
    readout = Readout(rng.normal(size=(n_in, 3)) / n_in, rng.normal(size=3))
    inputs = np.sin(np.linspace(0, 6, 24)[None, :, None] * rng.uniform(0.5, 2.0, (5, 1, 2)))
    return LMUNetwork(tuple(made), readout, True), inputs


def run(hybrid, inputs):
    """Return m, h, y of every step in units of the formats, and m in float coordinates."""
    network, record = hybrid.network, hybrid.run(inputs)
    samples, steps, _ = inputs.shape

    def together(parts):
        parts = [np.stack(frames, axis=1) for frames in parts]
        return np.concatenate([np.zeros((samples, steps, 0)), *parts], axis=2)

    return (
        together([record.states[memory.place] for memory in network.memories]),
        together([record.messages[units.place] for units in network.units]),
        together([record.messages[network.output]]),
        together([[record.memory(m, n) for n in range(steps)] for m in network.memories]),
    )


def everything(network):
    return Switches.of(*sources(network).values())


def narrowed(network, bits):
    """Return the network with accumulators so narrow that they saturate."""
    old = layered(network)
    layer = old.layers[0]
    memory = layer.memory
    changes = {"input": dataclasses.replace(memory.input, accumulator_bits=bits)}
    if hasattr(memory, "accumulator_bits"):
        changes["accumulator_bits"] = bits
    else:
        changes["recurrent"] = dataclasses.replace(memory.recurrent, accumulator_bits=bits)
    layers = (
        dataclasses.replace(layer, memory=dataclasses.replace(memory, **changes)),
        *old.layers[1:],
    )
    return relayered(old, layers=layers).graph()


def check_all_on(integer, inputs):
    target = IntegerTarget("numpy").run(integer, inputs, record=True)
    tally = Tally()
    m, h, y, _ = run(HybridSimulator(integer, everything(integer), tally=tally), inputs)
    assert (m == target.states.m).all()
    assert (h == target.states.h).all()
    assert (y == target.states.y).all()
    counted = {place: int(rows.sum()) for place, rows in tally.saturations.items()}
    assert counted == {place: target.saturations[place] for place in counted}
    assert sum(counted.values()) == sum(target.saturations.values())
    return counted


def check_all_off(network, integer, inputs):
    truth = run_reference(network, inputs, record=True)
    _, h, y, m = run(HybridSimulator(integer, Switches.of()), inputs)
    scales = [lay.hidden.message.scale for lay in layered(integer).layers if lay.hidden is not None]
    h = np.concatenate(
        [part * s for part, s in zip(np.split(h, len(scales), axis=2), scales, strict=True)], axis=2
    ) if scales else h  # fmt: skip
    np.testing.assert_allclose(m, truth.m, rtol=0, atol=1e-9)
    np.testing.assert_allclose(h, truth.h, rtol=0, atol=1e-9)
    np.testing.assert_allclose(y * integer.y_scale, truth.y, rtol=0, atol=1e-9)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    runs(most_nodes=5),
    st.sampled_from(["dense-incremental", "schur", "sign-taylor"]),
    st.sampled_from([None, 8]),
)
def test_both_extremes_of_every_population(given_run, realization, bits):
    """Networks of any operators: integers with everything on, the float network with nothing."""
    network, inputs = given_run
    try:
        integer = quantize(network, inputs, realization=realization, input_bits=bits)
    except InputError:
        assume(False)
    check_extremes(network, inputs, integer)


def check_extremes(network, inputs, integer):
    """Compare with everything on with the integer target, and with nothing with the network."""
    counterpart = float_counterpart(integer)
    flat = inputs.reshape(*inputs.shape[:2], -1)
    check_integers(integer, counterpart, flat)
    record = HybridSimulator(integer, Switches.of(), counterpart).run(flat)
    y = np.stack(record.messages[integer.output], axis=1) * integer.y_scale
    truth = run_reference(network, inputs).outputs
    truth = truth.reshape(*y.shape) if integer.return_sequences else truth.reshape(len(y), -1)
    y = y if integer.return_sequences else y[:, -1]
    np.testing.assert_allclose(y, truth, rtol=0, atol=1e-6 * np.abs(truth).max())


def check_integers(integer, counterpart, inputs):
    """Compare every state, message and saturation with those of the integer target."""
    target, tally = IntegerTarget("numpy").run(integer, inputs, record=True), Tally()
    record = HybridSimulator(integer, everything(integer), counterpart, tally).run(inputs)
    for population in integer.populations[1:]:
        if isinstance(population, HostNodes):
            continue  # the simulator keeps their messages, the target their real values
        memory = isinstance(population, Integrators | Series)
        frames = (record.states if memory else record.messages)[population.place]
        assert np.array_equal(np.stack(frames, 1), target.states.parts[str(population.place)])
    counted = {place: int(rows.sum()) for place, rows in tally.saturations.items()}
    # A series of one term sends no messages of terms, of which the target counts none saturated.
    assert dict.fromkeys(target.saturations, 0) | counted == target.saturations


def test_the_scaling_of_inputs_is_applied_once():
    """A network that scales its input first, as `train` makes them of a user's data."""
    scaling = Affine(np.array([0.5, -3.0]), np.array([0.25, 2.0]))
    dense = Dense(np.array([[0.3, -0.1, 0.8], [0.2, 0.5, -0.4]]))
    nodes = Node("scaling", scaling, (INPUT,)), Node("dense", dense, ("scaling",))
    network = Network(nodes, (2,), "dense")
    inputs = np.random.default_rng(4).normal(size=(6, 5, 2))
    integer = quantize(network, inputs)
    counterpart = float_counterpart(integer)
    check_integers(integer, counterpart, inputs)
    record = HybridSimulator(integer, Switches.of(), counterpart).run(inputs)
    found = np.stack(record.messages[integer.output], axis=1) * integer.y_scale
    truth = inputs * scaling.scale + scaling.offset
    np.testing.assert_allclose(found, truth @ dense.kernel, rtol=0, atol=1e-12)


POPULATIONS = {
    HostNodes: LayerNorm,
    Integrators: LinearMemory,
    Pointwise: Activation,
    Product: Multiply,
    LSTMUnits: LSTM,
    GRUUnits: GRU,
    Maximum: Pool,
    Reduction: Reduce,
    Output: Dense,
}
"""Every population that lowering adds, and an operator that becomes one."""


def drawn(first, has):
    """Draw networks that begin with an operator until one has something in integers."""

    def fits(given_run):
        try:
            return has(quantize(*given_run))
        except InputError:
            return False

    chosen = settings(max_examples=300, phases=[Phase.generate], database=None)
    return find(runs(most_nodes=2, first=first), fits, settings=chosen)


@pytest.mark.parametrize("kind", POPULATIONS)
def test_every_population_at_both_extremes(kind):
    def has(integer):
        return any(type(population) is kind for population in integer.populations)

    network, inputs = drawn(POPULATIONS[kind], has)
    check_extremes(network, inputs, quantize(network, inputs))


@pytest.mark.parametrize("kind", ["offsets", "stride"])
def test_edges_of_several_frames_at_both_extremes(kind):
    def has(integer):
        of_edges = {"offsets": lambda e: len(e.offsets) > 1, "stride": lambda e: e.stride > 1}
        return any(map(of_edges[kind], integer.edges))

    network, inputs = drawn(Conv1d, has)
    check_extremes(network, inputs, quantize(network, inputs))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("units", [0, 6])
@pytest.mark.parametrize("form", FORMS)
def test_both_extremes_of_every_form(form, units, layers):
    network, inputs = make(3, form=form, units=units, layers=layers)
    integer = quantize(network, inputs, realization=form)
    check_all_on(integer, inputs)
    check_all_off(network, integer, inputs)


@pytest.mark.parametrize("activation", ["relu", "linear", "hard-tanh"])
def test_both_extremes_of_every_activation(activation):
    network, inputs = make(4, activation=activation)
    integer = quantize(network, inputs)
    check_all_on(integer, inputs)
    check_all_off(network, integer, inputs)


@pytest.mark.parametrize("form", ["dense-incremental", "sign-taylor"])
def test_saturations_equal_the_integer_target(form):
    network, inputs = make(5, form=form)
    integer = narrowed(quantize(network, inputs, realization=form), 10)
    counted = check_all_on(integer, 3.0 * inputs)
    assert sum(counted.values()) > 0
    check_all_off(network, integer, 3.0 * inputs)


def test_a_delay_line_without_discretization_error_is_float():
    network, inputs = make(6, form="fir", layers=2)
    integer = quantize(network, inputs, realization="fir", taps=4)
    check_all_on(integer, inputs)
    check_all_off(network, integer, inputs)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**16),
    st.sampled_from(FORMS),
    st.sampled_from(["tanh", "relu"]),
    st.sampled_from([4, 8, 12]),
    st.sampled_from([1, 2]),
)
def test_both_extremes_of_any_network(seed, form, activation, bits, slices):
    network, inputs = make(seed, form=form, activation=activation)
    integer = quantize(
        network, inputs, realization=form, message_bits=bits, hidden_bits=bits, slices=slices
    )
    check_all_on(integer, inputs)
    check_all_off(network, integer, inputs)


@pytest.mark.parametrize("form", FORMS)
def test_each_source_has_its_own_effect(form):
    """One at a time: each that has an operation to switch moves the outputs, but by no more than
    a coarse network errs in all; none of the others does."""
    network, inputs = make(7, form=form)
    integer = quantize(network, inputs, realization=form, taps=6 if form == "fir" else None)
    _, _, truth, _ = run(HybridSimulator(integer, Switches.of()), inputs)
    moved = {}
    for name, switches in sources(integer).items():
        _, _, y, _ = run(HybridSimulator(integer, Switches.of(switches)), inputs)
        moved[name] = float(np.abs(y - truth).max()) * integer.y_scale
    assert list(moved) == list(SOURCES)
    still = {name for name, change in moved.items() if change < 1e-12}
    assert still <= {"saturation", "discretization", "memory weights", "message thresholds"}
    assert "message thresholds" in still
    assert ("discretization" in still) == (form not in ("sign-taylor", "fir"))


def test_rows_of_weights_add_up_to_the_place():
    """All rows together equal the place; no row equals the float matrix."""
    network, inputs = make(8)
    integer = quantize(network, inputs, slices=1)
    place = "layer0/memory/recurrent"
    whole = next(s for s in sources(integer)["memory weights"] if s.place == place)
    rows = [dataclasses.replace(whole, row=row) for row in range(10)]
    _, _, one, _ = run(HybridSimulator(integer, Switches.of([whole])), inputs)
    _, _, other, _ = run(HybridSimulator(integer, Switches.of(rows)), inputs)
    np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-6)


def test_a_network_without_its_float_network_is_refused():
    network, inputs = make(9)
    integer = dataclasses.replace(quantize(network, inputs), source=None)
    with pytest.raises(InputError, match="does not contain the float network"):
        HybridSimulator(integer, Switches.of())


def test_messages_with_thresholds_equal_the_integer_target():
    network, inputs = make(10, layers=2)
    integer = quantize(network, inputs)
    layers = []
    for layer in layered(integer).layers:
        hidden = layer.hidden
        for name, threshold in (("memory", 9), ("recurrent", 2), ("input", 1)):
            connection = dataclasses.replace(getattr(hidden, name), threshold=threshold)
            hidden = dataclasses.replace(hidden, **{name: connection})
        layers.append(dataclasses.replace(layer, hidden=hidden))
    integer = relayered(integer, layers=tuple(layers))
    places = [switch.place for switch in sources(integer)["message thresholds"]]
    assert places == [f"layer{n}/hidden/{name}" for n in (0, 1) for name in ("memory", "recurrent")]
    check_all_on(integer, inputs)
    check_all_off(network, integer, inputs)
