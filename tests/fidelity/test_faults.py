"""Faults of integer targets are named with their place and index, and never have a tick."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.quantize import quantize as convert
from converters.quantize.memory_analysis import coordinates
from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.validate import validate
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.graph.linear import Affine, Dense
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.recurrent import GRU, LSTM
from lmu_deploy.core.integer.gated import GatedUnits
from lmu_deploy.core.integer.graph import with_connections
from lmu_deploy.core.loading import load
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity.gate import Limits, against_float, check_limits
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.fidelity.measures.damage import damage
from lmu_deploy.fidelity.replay.faults import explain
from lmu_deploy.fidelity.replay.integers import Replay, recorded_parts
from lmu_deploy.fidelity.schema import Fit
from lmu_deploy.fidelity.specification import examine, examined
from lmu_deploy.report.wording import specification, verdict
from lmu_deploy.tasks.base import get_task
from targets.base import States
from targets.integer import IntegerTarget
from targets.reference import ReferenceTarget

DIGITS = "examples/models/digits.safetensors"

pytestmark = pytest.mark.xdist_group("digits in integers")


@pytest.fixture(scope="module")
def network():
    return quantize(DIGITS, slices=2, kernel_slices=2)


@pytest.fixture(scope="module")
def split():
    return get_task("digits").load().test


@pytest.fixture(scope="module")
def reference(split):
    return ReferenceTarget().run(load(DIGITS), split.inputs, record=True)


def changed(network, place, **fields):
    """Return the network with other fields of one connection."""
    edge = next(e for e in network.edges if e.place == place)
    return with_connections(network, {place: replace(edge.connection, **fields)})


def weights(network, place):
    edge = next(e for e in network.edges if e.place == place)
    return edge.connection.slices.copy()


class Faulty(IntegerTarget):
    """A target that runs another network than it is given."""

    name = "faulty"

    def __init__(self, actual, touch=None):
        super().__init__()
        self.actual, self.touch = actual, touch

    def run(self, network, inputs, **options):
        run = replace(super().run(self.actual, inputs, **options), target=self.name)
        if self.touch is None or run.states is None:
            return run
        replay = Replay(self.actual, inputs, touch=self.touch)
        parts = {p.place: replay[p.place] for p in network.populations[1:]}
        outputs = parts[network.output] * network.y_scale
        states = States.of_integers(network, parts)
        return replace(
            run, states=states, outputs=outputs if network.return_sequences else outputs[:, -1]
        )


def found(network, split, target, samples=16):
    """Return the replayed recording of a target, and the statements about it."""
    run = target.run(network, split.inputs[:samples], record=True)
    replay = Replay(network, split.inputs[:samples], recorded_parts(network, run.states))
    return replay, explain(replay)


EDGES = {
    "layer0/memory/recurrent": "layer0/memory",
    "layer0/memory/input": "input",
    "layer0/hidden/memory": "layer0/memory",
    "layer0/hidden/recurrent": "layer0/hidden",
    "readout": "layer0/hidden",
}


@pytest.mark.parametrize("place", EDGES)
@pytest.mark.parametrize("fault", ["sign", "lost", "column", "columns", "slice", "weight", "gain"])
def test_wrong_weights_are_named_with_their_index(network, split, place, fault):
    slices = weights(network, place)
    rng = np.random.default_rng(len(place))
    row, column = (int(rng.integers(n)) for n in slices.shape[1:])
    while fault.startswith("column") and not slices[:, :, column].any():
        column = (column + 1) % slices.shape[2]
    other = (column + 1) % slices.shape[2]
    place_named, index, kind = place, (row,), f"row {fault}"
    if fault == "sign":
        slices[:, row] *= -1
    elif fault == "lost":
        slices[:, row] = 0
    elif fault == "column":
        slices[:, :, column] = 0
        place_named, index, kind = EDGES[place], (column,), "column lost"
    elif fault == "columns":
        slices[:, :, [column, other]] = slices[:, :, [other, column]]
        place_named, index = EDGES[place], (min(column, other), max(column, other))
        kind = "exchanged"
    elif fault == "slice":
        slices[1] = 0
        index, kind = (1,), "slice lost"
    elif fault == "weight":
        column = int(np.abs(slices[:, row]).sum(axis=0).argmax())
        slices[0, row, column] -= np.sign(slices[0, row, column]) * 9
        index, kind = (row, column), "weight"
    edge = next(e for e in network.edges if e.place == place)
    bad = changed(network, place, slices=slices)
    if fault == "gain":
        shift = edge.connection.shift.copy()
        shift[:, row] += 1
        bad = changed(network, place, shift=shift)
    replay, (first, *_) = found(network, split, Faulty(bad))
    assert replay.first is not None
    if (fault, place) == ("lost", "readout"):  # without weights, an output is its bias
        kind = "stuck"
    assert (first.kind, first.place, first.index) == (kind, place_named, index)
    assert str(index[0]) in first.words and place_named in first.words
    assert first.wrong <= 0.02 * replay.different


@pytest.fixture(scope="module")
def gated():
    """Return LSTM and GRU units between other populations, in integers, and inputs."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(32, 12, 3))
    shapes = {"lstm": (LSTM, 4), "gru": (GRU, 3)}
    found = {}
    for name, (cell, gates) in shapes.items():
        arrays = [rng.normal(size=(rows, gates * 5)) / 2 for rows in (3, 5)]
        nodes = [
            Node("cell", cell(*arrays, rng.normal(size=gates * 5) / 4), (INPUT,)),
            Node("readout", Dense(rng.normal(size=(5, 2))), ("cell",)),
        ]
        found[name] = convert(Network(nodes, (3,), "readout"), x), x[:8]
    return found


@pytest.mark.parametrize("unit", ["lstm", "gru"])
@pytest.mark.parametrize("fault", ["lost", "sign", "columns"])
@pytest.mark.parametrize("part", [0, 1])
def test_wrong_columns_of_gated_units_are_named(gated, unit, fault, part):
    """Their states are not recorded, and each message depends on all frames before it."""
    network, x = gated[unit]
    units = next(p for p in network.on_chip if isinstance(p, GatedUnits))
    edge = network.entering(units.entrance)[part]
    slices = edge.connection.slices.copy()
    column, other = 1, 2
    if fault == "columns":
        slices[:, :, [column, other]] = slices[:, :, [other, column]]
    else:
        slices[:, :, column] *= -1 if fault == "sign" else 0
    run = IntegerTarget().run(changed(network, edge.place, slices=slices), x, record=True)
    specification, (first, *_) = examined(run, network, x)
    assert not specification.equal
    assert first.place == str(edge.source)
    assert first.index == ((column, other) if fault == "columns" else (column,))
    assert first.kind == ("exchanged" if fault == "columns" else f"column {fault}")


@pytest.mark.parametrize("place", ["layer0/memory", "layer0/hidden", "readout"])
@pytest.mark.parametrize("fault", ["dead", "stuck", "flipped bit", "bias"])
def test_wrong_neurons_are_named(network, split, place, fault):
    population = next(p for p in network.on_chip if str(p.place) == place)
    i = population.size // 3

    def touch(at, n, values):
        if at != population.place:
            return values
        values = values.copy()
        if fault == "flipped bit" and n == 3:
            values[5, i] ^= 1 << 5
        elif fault in ("dead", "stuck"):
            values[:, i] = 0 if fault == "dead" else 37
        return values

    actual = network
    if fault == "bias":
        bias = np.zeros(population.size, np.int32) if population.bias is None else population.bias
        bias = bias + population.stored.limit // 4000 * (np.arange(population.size) == i)
        other = replace(population, bias=bias)
        populations = (other if p is population else p for p in network.populations)
        actual = replace(network, populations=tuple(populations))
        touch = None
    replay, (first, *_) = found(network, split, Faulty(actual, touch))
    assert (first.kind, first.index) == (fault, (i,))
    assert first.place == (f"{place}/bias" if fault == "bias" else place)
    assert replay.first.neuron == i
    if fault == "flipped bit":
        assert replay.different == 1
        assert first.words == (f"Bit 5 of neuron {i} of {place} is flipped at step 3 of sample 5.")


def test_a_wrong_shift_and_a_narrow_width_of_messages_are_named(network, split):
    memory = network.memories[0]

    def actual(**fields):
        other = replace(memory, **fields)
        populations = tuple(other if p is memory else p for p in network.populations)
        return replace(network, populations=populations)

    shift = memory.message_shift + 1
    _, (first, *_) = found(network, split, Faulty(actual(message_shift=shift)))
    assert (first.kind, first.index) == ("message shift", (shift,))
    narrow = replace(memory.message, bits=memory.message.bits - 4)
    _, (first, *_) = found(network, split, Faulty(actual(message=narrow)))
    assert (first.kind, first.index) == ("message width", (narrow.bits,))


def test_a_late_message_is_named(network, split):
    edges = tuple(
        replace(e, offsets=(-1,), after=-1) if e.place == "layer0/memory/input" else e
        for e in network.edges
    )
    _, (first, *_) = found(network, split, Faulty(replace(network, edges=edges)))
    assert (first.kind, first.place, first.index) == ("delay", "layer0/memory/input", (1,))


def judged(network, split, reference, target, samples, margin=None):
    run = target.run(network, split.inputs[:samples], record=True)
    return judge(
        run, reference, get_task("digits"), split.targets, network=network, inputs=split.inputs,
        source=load(DIGITS), margin=margin,
    )  # fmt: skip


def test_a_dead_unit_has_no_tick_and_no_gate_lets_it_pass(
    network, split, reference, digits, assembled
):
    unit = 5

    def touch(place, n, values):
        if str(place) != "layer0/hidden":
            return values
        return np.where(np.arange(values.shape[1]) == unit, 0, values)

    target = judged(network, split, reference, Faulty(network, touch), 359)
    assert target.metric.value > 0.97
    assert not target.specification.equal
    words, tone = verdict(target)
    assert words.startswith("differs from the specification") and tone == "worse"
    sentences = specification(target.specification)
    assert sentences[2] == "Neuron 5 of layer0/hidden never changes from 0: dead."
    healthy = judged(network, split, reference, IntegerTarget(), 359)
    assert verdict(healthy)[1] == "same" and healthy.specification.equal
    fidelity = assembled(digits)[0].model_copy(
        update={"targets": {"faulty": target, "integer": healthy}}
    )
    checks = check_limits(fidelity, Limits(equal=True))
    assert [(c.target, c.passed) for c in checks] == [("faulty", False), ("integer", True)]
    with pytest.raises(InputError, match="nothing to check"):
        check_limits(assembled(digits)[0], Limits(equal=True))


def exchanged_inputs(network, i, j):
    """Return the network with two channels of its input exchanged."""
    for place in ("layer0/memory/input",):
        slices = weights(network, place)
        slices[:, :, [i, j]] = slices[:, :, [j, i]]
        network = changed(network, place, slices=slices)
    return network


@pytest.mark.parametrize("samples", [8, 16, 359])
def test_exchanged_inputs_have_no_tick_however_few_the_samples(network, split, reference, samples):
    bad = exchanged_inputs(network, 3, 4)
    in_file = judged(bad, split, reference, IntegerTarget(), samples)
    assert in_file.specification.equal  # the target runs the damaged file as it is
    assert (
        in_file.damage[0] == "The weights of column 3 of layer0/memory/input are those of column 4."
    )
    assert verdict(in_file)[1] == "worse"
    assert verdict(in_file)[0].startswith("its file is damaged; ")
    in_target = judged(network, split, reference, Faulty(bad), samples)
    assert verdict(in_target)[1] == "worse"
    assert specification(in_target.specification)[2] == (
        "Messages of neurons 3 and 4 of input arrive exchanged."
    )


def test_few_samples_are_undecided_with_the_number_that_decides(network, split, reference):
    few = judged(network, split, reference, IntegerTarget(), 8)
    assert verdict(few) == (
        "equals the specification; undecided within 1 point: needs 268 samples or more; fits its "
        "chip",
        "unknown",
    )
    assert verdict(judged(network, split, reference, IntegerTarget(), 267))[1] == "unknown"
    assert verdict(judged(network, split, reference, IntegerTarget(), 268))[1] == "same"
    wide = judged(network, split, reference, IntegerTarget(), 60, margin=0.05)
    assert verdict(wide)[0].startswith("equivalent to float within 5 points")


def test_a_difference_at_the_margin_is_said_to_be_there(network, split, reference):
    outputs = IntegerTarget().run(network, split.inputs[:300]).outputs.copy()
    right = np.flatnonzero(outputs.argmax(axis=1) == split.targets[:300])
    expected = reference.outputs[:300].argmax(axis=1)
    lost = int((expected == split.targets[:300]).sum()) - len(right)
    outputs[right[: 3 - lost]] *= -1.0  # three of 300 are lost, which is the margin

    class AtTheMargin(IntegerTarget):
        def run(self, *given, **options):
            return replace(super().run(*given, **options), outputs=outputs)

    found = judged(network, split, reference, AtTheMargin(), 300)
    assert against_float(found, 0.01) == (
        "unknown",
        "undecided within 1 point: the difference is at the margin, which not even 10,000,000 "
        "samples decide",
    )


def test_a_margin_may_be_met_by_a_target_to_which_another_is_identical(digits, assembled):
    fidelity = assembled(digits)[0]
    assert fidelity.targets["lava"].equal_to.equal
    checks = {c.target: c for c in check_limits(fidelity, Limits(margin=0.1))}
    assert checks["integer"].passed and checks["lava"].passed
    assert "bit-identical to integer" in checks["lava"].sentence
    tight = {c.target: c.passed for c in check_limits(fidelity, Limits(margin=0.001))}
    assert not tight["integer"] and not tight["lava"]
    with pytest.raises(InputError, match="--margin"):
        Limits(margin=0.0)


def test_the_chip_of_an_analog_network_must_fit(digits, assembled):
    fidelity = assembled(digits)[0]
    fit = Fit(profile="dynapse2", title="DYNAP-SE2", violations=["neurons: 4,800 of 1,024."])
    brian2 = fidelity.targets["brian2"].model_copy(update={"fit": fit})
    changed = fidelity.model_copy(update={"targets": {"brian2": brian2}})
    (check,) = check_limits(changed, Limits(fit=True))
    assert not check.passed and "does not fit DYNAP-SE2" in check.sentence


def test_the_gates_of_a_validation(tmp_path):
    given = {"targets": {"integer": 20}, "attribution": 0}
    report = validate(DIGITS, **given, must_equal=True, margin=0.2)
    assert report["integer"].specification.equal
    assert report["integer"].reference.margin == 0.2
    with pytest.raises(RunError, match=r"integer: undecided within 1 point"):
        validate(DIGITS, **given, margin=0.01, out=tmp_path)
    assert (tmp_path / "report.html").is_file()
    with pytest.raises(InputError, match="nothing to check"):
        validate(DIGITS, targets="onnxruntime", limit=4, attribution=0, must_equal=True)


def test_nothing_is_examined_where_no_integers_were_recorded(network, split):
    run = IntegerTarget().run(network, split.inputs[:2])
    assert examine(run, network, split.inputs) is None
    assert examine(run, load(DIGITS), split.inputs) is None


@pytest.mark.parametrize("place", EDGES)
@pytest.mark.parametrize("fault", ["sign", "lost", "gain", "column", "columns", "slice", "weight"])
def test_damaged_weights_of_a_file_are_named(network, place, fault):
    slices = weights(network, place)
    edge = next(e for e in network.edges if e.place == place)
    truth = edge.connection.dequantized
    row, column = (int(np.linalg.norm(truth, axis=k).argmax()) for k in (1, 0))
    other = (column + 1) % truth.shape[1]
    fields, kind, index, at = {"slices": slices}, f"row {fault}", (row,), place
    if fault == "sign":
        slices[:, row] *= -1
    elif fault == "lost":
        slices[:, row] = 0
    elif fault == "gain":
        fields = {"shift": edge.connection.shift + (np.arange(len(truth)) == row)}
    elif fault == "column":
        slices[:, :, column] = 0
        kind, index, at = "column lost", (column,), EDGES[place]
    elif fault == "columns":
        slices[:, :, [column, other]] = slices[:, :, [other, column]]
        kind, index, at = "exchanged", tuple(sorted((column, other))), EDGES[place]
    elif fault == "slice":
        slices[1] = 0
        kind, index = "slice lost", (1,)
    else:
        column = int(np.abs(truth[row]).argmax())
        slices[0, row, column] -= np.sign(slices[0, row, column]) * 50
        kind, index = "weight", (row, column)
    assert damage(network) == []
    found = damage(changed(network, place, **fields))
    assert found and len(found) <= 3
    assert (found[0].kind, found[0].place) == (kind, at)
    assert found[0].index == index or set(found[0].index) == set(index)


@pytest.mark.parametrize("realization", ["dense-incremental", "schur", "fir"])
@pytest.mark.parametrize("part", ["message", "state", "units"])
def test_widths_that_do_not_match_their_unit_are_named(realization, part):
    """The same messages with fewer bits; with the unit of six bits they are no damage."""
    inputs = get_task("digits").load().train.inputs[:64]
    digits = load("examples/models/digits.safetensors")
    made = convert(digits, inputs, realization=realization)
    memory, units = made.memories[0], made.units[0]
    old, name, bits = (units, "message", 6) if part == "units" else (memory, part, 8)
    narrow = replace(old, **{name: replace(getattr(old, name), bits=bits)})
    bad = replace(made, populations=tuple(narrow if p is old else p for p in made.populations))
    (found,) = damage(bad)
    kind = "state width" if part == "state" else "message width"
    assert (found.kind, found.place, found.index) == (kind, str(old.place), (bits,))
    assert f"have {bits} bits and end at" in found.words
    right = convert(digits, inputs, realization=realization, message_bits=6)
    assert right.memories[0].message.bits == 6
    assert damage(made) == damage(right) == []


def test_a_damaged_bias_of_a_file_is_named(network):
    output = network[network.output]
    bias = output.bias.copy()
    bias[4] += 10 * np.abs(bias).max()
    populations = tuple(replace(p, bias=bias) if p is output else p for p in network.populations)
    (found,) = damage(replace(network, populations=populations))
    assert (found.kind, found.place, found.index) == ("bias", "readout/bias", (4,))


@pytest.mark.parametrize("fault", ["rows", "column", "half"])
def test_damage_of_a_delay_line_is_named(fault):
    """Its weights are zeros and ones, which the float network does not hold."""
    line = quantize(DIGITS, realization="fir")
    place = "layer0/memory/recurrent"
    connection = next(e.connection for e in line.edges if e.place == place)
    slices, shift = connection.slices.copy(), connection.shift.copy()
    wanted = {"rows": (3, 9), "column": (5,), "half": ()}[fault]
    if fault == "rows":
        slices[:, [3, 9]] = slices[:, [9, 3]]
    elif fault == "column":
        slices[:, :, 5] *= -1
    else:
        shift += 1
    assert damage(line) == []
    found = damage(changed(line, place, slices=slices, shift=shift))
    assert set(found[0].index) == set(wanted)
    assert found[0].place == ("layer0/memory" if fault == "column" else place)


@pytest.mark.parametrize("fault", ["weight", "row"])
def test_a_small_change_of_an_exact_matrix_is_damage(fault):
    """A delay line has ones, which need no rounding."""
    line = quantize(DIGITS, realization="fir")
    place = "layer0/memory/recurrent"
    connection = next(e.connection for e in line.edges if e.place == place)
    slices, multiplier = connection.slices.copy(), connection.multiplier.copy()
    shift = connection.shift.copy()
    row, column = (int(n) for n in np.argwhere(slices[0])[5])
    if fault == "weight":
        slices[0, row, column] *= -1
    else:
        multiplier[:, row] *= 3
        shift[:, row] += 2
    (found,) = damage(changed(line, place, slices=slices, multiplier=multiplier, shift=shift))
    assert (found.place, found.index[0]) == (place, row)


@pytest.fixture(scope="module")
def small():
    """Return a network with a memory of four states, one input and one output, in integers."""
    rng = np.random.default_rng(0)
    hidden = Hidden(
        rng.normal(size=(4, 6)), rng.normal(size=(1, 6)), None, rng.normal(size=6), "tanh"
    )
    memory = Memory.legendre(4, 9.0)
    layer = LMULayer(np.ones((1, 1)), None, None, None, memory, hidden)
    source = LMUNetwork((layer,), Readout(rng.normal(size=(6, 1)), np.ones(1)))
    return convert(Network.from_layers(source), rng.normal(size=(32, 12, 1)), slices=2)


@pytest.mark.parametrize("fault", ["column", "row", "rows", "bias"])
def test_damage_of_a_small_memory_is_named(small, fault):
    """One weight has most of the error of its line, and a line is most of a matrix."""
    place = "layer0/memory/input" if fault == "rows" else "layer0/memory/recurrent"
    connection = next(e.connection for e in small.edges if e.place == place)
    arrays = {n: getattr(connection, n).copy() for n in ("slices", "multiplier", "shift")}
    at, index = place, {"column": (3,), "row": (3,), "rows": (0, 3), "bias": (0,)}[fault]
    if fault == "column":
        arrays["slices"][:, :, 3] *= -1
        at = "layer0/memory"
    elif fault == "row":
        arrays["shift"][:, 3] += 3
    elif fault == "rows":
        for values in arrays.values():
            values[:, [0, 3]] = values[:, [3, 0]]
    bad = changed(small, place, **arrays)
    if fault == "bias":
        output, at = small[small.output], f"{small.output}/bias"
        wrong = replace(output, bias=output.bias * 3)
        parts = tuple(wrong if p is output else p for p in small.populations)
        bad = replace(small, populations=parts)
    assert damage(small) == []
    first = damage(bad)[0]
    assert (first.place, set(first.index)) == (at, set(index))


def test_a_row_far_beyond_its_rounding_is_damage_even_if_small(network):
    """The last of two slices twice as large: 0.1 % of the row, and many times its rounding."""
    place = "layer0/memory/recurrent"
    connection = next(e.connection for e in network.edges if e.place == place)
    shift = connection.shift.copy()
    row = int(shift[1].argmax())
    shift[1, row] -= 3
    (found,) = damage(changed(network, place, shift=shift))
    assert (found.place, found.index) == (place, (row,))


def test_a_bias_where_float_has_none_is_damage(network):
    memory = network.memories[0]
    bias = np.zeros(memory.drive_size, np.int32)
    bias[3] = 5000
    populations = tuple(replace(p, bias=bias) if p is memory else p for p in network.populations)
    (found,) = damage(replace(network, populations=populations))
    assert (found.kind, found.place, found.index) == ("bias", f"{memory.entrance}/bias", (3,))


ROUGH = [
    {"slices": 1},
    {"kernel_bits": 3},
    {"slices": 1, "realization": "hessenberg"},
    {"slices": 1, "realization": "schur"},
]


@pytest.mark.parametrize("options", ROUGH)
def test_coarse_rounding_is_no_damage_and_one_unit_more_is(options):
    """Also in a memory whose basis was fitted after rounding, in ranges that no file holds.

    Only the input of such a memory may be that of other ranges.
    """
    made = quantize(DIGITS, **options)
    assert damage(made) == []
    rng = np.random.default_rng(0)
    for edge in made.edges:
        slices = edge.connection.slices.copy()
        row, column = (int(n) for n in rng.choice(np.argwhere(slices[-1])))
        slices[-1, row, column] -= np.sign(slices[-1, row, column])
        found = damage(changed(made, edge.place, slices=slices))
        if edge.place != "layer0/memory/input" or "realization" not in options:
            assert any(edge.place in f.words and f.index[0] in (row, column) for f in found)


def test_nearly_equal_columns_that_are_exchanged_are_named():
    """They differ by a few units of the last slice, which no answer would show."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 4))
    kernel[3] = 1.0005 * kernel[1]
    source = Network((Node("y", Dense(kernel), (INPUT,)),), (5,), "y")
    made = convert(source, rng.normal(size=(16, 5, 5)), kernel_slices=2)
    slices = made.edges[0].connection.slices.copy()
    slices[:, :, [1, 3]] = slices[:, :, [3, 1]]
    assert damage(made) == []
    found = damage(changed(made, made.edges[0].place, slices=slices))
    assert [(f.kind, f.place, set(f.index)) for f in found] == [("exchanged", "input", {1, 3})] * 2


@pytest.mark.parametrize("realization", ["schur", "hessenberg"])
def test_half_of_an_input_is_damage_though_other_ranges_would_explain_it(realization):
    made = quantize(DIGITS, slices=1, realization=realization)
    place = "layer0/memory/input"
    shift = next(e.connection.shift for e in made.edges if e.place == place)
    found = damage(changed(made, place, shift=np.minimum(shift + 1, 31)))
    assert {fault.place for fault in found} == {place}


def test_signs_of_coordinates_of_another_lapack_are_no_damage(monkeypatch):
    made = quantize(DIGITS, slices=1, realization="schur")
    rng = np.random.default_rng(1)

    def other(layer, form):
        found = coordinates(layer, form)
        signs = rng.choice([-1.0, 1.0], len(found.basis))
        return replace(found, basis=found.basis * signs, inverse=(found.inverse.T * signs).T)

    monkeypatch.setattr("lmu_deploy.fidelity.attribution.counterpart.coordinates", other)
    assert damage(made) == []


def test_an_edge_that_reads_other_frames_is_named(network):
    edge = next(e for e in network.edges if e.place == "readout")
    late = replace(edge, offsets=(-1,), after=-1)
    edges = tuple(late if e is edge else e for e in network.edges)
    (found,) = damage(replace(network, edges=edges))
    assert (found.kind, found.place) == ("frames", "readout")


def test_units_of_channels_that_are_not_those_of_the_float_network_are_named():
    scaling = Affine(np.array([2.0, 0.01]), np.array([0.0, 0.5]))
    nodes = (Node("scaling", scaling, (INPUT,)), Node("y", Dense(np.ones((2, 1))), ("scaling",)))
    source = Network(nodes, (2,), "y")
    made = convert(source, np.random.default_rng(0).normal(size=(8, 5, 2)) * [0.5, 100.0])
    assert damage(made) == []
    entry = made.populations[0]
    wrong = replace(entry, gain=entry.gain[::-1])
    found = damage(replace(made, populations=(wrong, *made.populations[1:])))
    assert [(f.kind, f.place, f.index) for f in found] == [
        ("unit", "input", (0,)),
        ("unit", "input", (1,)),
    ]


def recorded_as(good, network, change):
    """Return a run whose recorded populations are changed, with the outputs that follow."""
    parts = {name: change(values.copy()) for name, values in good.states.parts.items()}
    outputs = parts[str(network.output)][:, -1] * network.y_scale
    return replace(good, states=replace(good.states, parts=parts), outputs=outputs)


@pytest.fixture(scope="module")
def good(network, split):
    return IntegerTarget().run(network, split.inputs[:24], record=True)


def reused(values):
    """Give sample 5 the values of sample 4."""
    values[5] = values[4]
    return values


def stopped(values):
    """Keep the values of step 4."""
    values[:, 5:] = values[:, 4:5]
    return values


@pytest.mark.parametrize(
    ("change", "kind", "index"),
    [
        (lambda values: values[::-1], "samples", (0, 1, 2)),
        (reused, "samples", (5,)),
        (stopped, "stopped", (4,)),
    ],
    ids=["reversed", "reused", "stopped"],
)
def test_faults_of_whole_samples_are_named(network, split, good, change, kind, index):
    run = recorded_as(good, network, change)
    specification, (fault,) = examined(run, network, split.inputs)
    assert not specification.equal
    assert (fault.kind, fault.index) == (kind, index)


def test_states_that_are_not_reset_between_samples_are_named(network, split, good):
    x = split.inputs[:24]
    one = IntegerTarget().run(network, x.reshape(1, -1, x.shape[2]), record=True)
    parts = {name: v.reshape(24, -1, v.shape[2]) for name, v in one.states.parts.items()}
    run = replace(good, states=replace(good.states, parts=parts))
    _, (fault,) = examined(run, network, x)
    assert fault.kind == "not reset"
    longer = recorded_as(good, network, lambda values: values + 1)
    assert examined(longer, network, x)[1][0].kind != "not reset"


def test_right_integers_with_other_outputs_or_counts_have_no_tick(network, split, good, reference):
    x, outputs = split.inputs, good.outputs.copy()
    outputs[17] = outputs[16]
    nothing = {name: 0 * counts for name, counts in good.events.items()}
    for run, kind, words in (
        (replace(good, outputs=1.01 * good.outputs), "outputs", "Outputs of 24 samples"),
        (replace(good, outputs=outputs), "outputs", "Outputs of 1 sample, the first of which is"),
        (replace(good, events=nothing), "events", "reports 0 messages of input"),
    ):
        specification, faults = examined(run, network, x)
        assert not specification.equal and faults[0].kind == kind
        assert words in specification.faults[0]
        found = judge(
            run, reference, get_task("digits"), split.targets, network=network, inputs=x, margin=1.0
        )
        assert verdict(found)[1] == "worse"
    specification, faults = examined(good, network, x)
    assert specification.equal and faults == []


def test_what_was_not_recorded_is_said(network, split, good):
    name = str(network.output)
    states = replace(good.states, parts={name: good.states.parts[name]})
    found, _ = examined(replace(good, states=states), network, split.inputs)
    assert found.equal
    assert specification(found)[1] == (
        "Not recorded, and compared by the outputs alone: layer0/memory, layer0/hidden."
    )


def test_a_target_that_records_no_integers_fails_the_gate(
    network, split, good, reference, digits, assembled
):
    run = replace(good, states=None)
    found = judge(
        run, reference, get_task("digits"), split.targets, network=network, inputs=split.inputs
    )
    assert found.specification is None
    healthy = judged(network, split, reference, IntegerTarget(), 24)
    fidelity = assembled(digits)[0].model_copy(
        update={"targets": {"silent": found, "integer": healthy}}
    )
    checks = {c.target: c for c in check_limits(fidelity, Limits(equal=True))}
    assert checks["integer"].passed and not checks["silent"].passed
    assert "recorded none of the integers" in checks["silent"].sentence


@pytest.mark.parametrize("fault", ["function", "shift"])
def test_a_wrong_function_or_shift_of_a_file_is_named(network, fault):
    memory = network.memories[0]
    units = next(p for p in network.on_chip if str(p.place) == "layer0/hidden")
    slope = units.function.slope.copy()
    slope[0] = slope[0] * 9 // 10
    old, new = {
        "function": (units, replace(units, function=replace(units.function, slope=slope))),
        "shift": (memory, replace(memory, message_shift=memory.message_shift + 1)),
    }[fault]
    parts = tuple(new if p is old else p for p in network.populations)
    (found,) = damage(replace(network, populations=parts))
    assert (found.kind, found.place) == (fault, str(old.place))
