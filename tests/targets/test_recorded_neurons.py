"""Recordings of networks on neurons: judged and replayed like the runs that they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from loihi_graphs import two_blocks
from planted import planted_chips

import lmu_deploy as ld
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.graph.linear import Dense
from lmu_deploy.core.graph.memory import LinearMemory
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.pointwise import Activation
from lmu_deploy.core.graph.time import Reduce
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity.specification import examine
from targets.recorded import RecordedTarget, Recording

DIGITS = "examples/models/digits.safetensors"
SMALL = {"neurons_per_state": 16, "calibration_samples": 32, "presentation_ms": 20.0}
FIGURES = (
    "metric", "reference", "specification", "memory_error", "events", "populations", "neurons",
    "divergence", "window", "fit", "saturations", "steps", "chip_steps",
)  # fmt: skip

pytestmark = pytest.mark.xdist_group("digits on neurons")


def graph_of_digits() -> Network:
    """Return an untrained network of the digits task that is no chain of layers."""
    rng = np.random.default_rng(4)

    def weights(*shape: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, shape) / np.sqrt(shape[0])

    return Network(
        (
            Node("m1", LinearMemory(Memory.legendre(3, 6.0, 2), 2.0 * weights(8, 2)), (INPUT,)),
            Node("d1", Dense(2.0 * weights(6, 5), weights(5)), ("m1",)),
            Node("u1", Activation("tanh"), ("d1",)),
            Node("m2", LinearMemory(Memory.legendre(3, 6.0, 2), 2.0 * weights(5, 2)), ("u1",)),
            Node("mean", Reduce("mean"), ("m2",)),
            Node("out", Dense(weights(6, 10), weights(10)), ("mean",)),
        ),
        (8,),
        "out",
    )


@pytest.fixture(scope="module")
def chip():
    return ld.spike(DIGITS, mismatch=0.2, membrane_noise=0.05, **SMALL)


@pytest.fixture(scope="module")
def graph():
    made = ld.spike(
        graph_of_digits(), "digits", units="chip", mismatch=0.2, membrane_noise=0.05, **SMALL
    )
    assert type(made).__name__ == "SpikingGraph"
    return made


@pytest.fixture(scope="module")
def loihi():
    return ld.spike(DIGITS, profile="loihi1", neurons_per_state=16, presentation_ms=20.0)


def inputs(samples: int = 6) -> np.ndarray:
    return ld.load_task("digits").task.load().test.inputs[:samples]


def arrays_of(network, target: str, path, samples: int = 6) -> dict[str, np.ndarray]:
    """Run a network, write its recording to a file, and return the arrays of this file."""
    ld.run(network, "digits", limit=samples, target=target, record=path, reference=False)
    return dict(np.load(path))


@pytest.fixture(scope="module")
def of_chip(chip, tmp_path_factory):
    return arrays_of(chip, "brian2", tmp_path_factory.mktemp("chip") / "board.npz")


@pytest.fixture(scope="module")
def of_graph(graph, tmp_path_factory):
    return arrays_of(graph, "spiking", tmp_path_factory.mktemp("graph") / "board.npz")


def recorded(network, arrays, samples: int = 6):
    """Return the run of a recording."""
    return RecordedTarget(Recording("board", arrays)).run(network, inputs(samples), record=True)


def examined(network, arrays):
    return examine(recorded(network, arrays), network, inputs())


def validated(source, network, *recordings, **options):
    given = {"targets": [], "attribution": 0, "use": [network], **options}
    return ld.validate(source, recordings=recordings, **given)


@pytest.mark.parametrize("kind", ["chip", "graph", "loihi", "loihi graph"])
def test_a_recording_reproduces_the_figures_of_its_target(kind, request, tmp_path):
    source, target = DIGITS, "brian2"
    if kind == "loihi graph":
        source, target = graph_of_digits(), "spiking"
        network = ld.spike(source, "digits", profile="loihi1", **SMALL)
    else:
        network = request.getfixturevalue(kind)
    if kind == "loihi":
        target = "spiking"
    elif kind == "graph":
        source = graph_of_digits()
    path = tmp_path / "board.npz"
    ld.run(network, "digits", limit=4, target=target, record=path)
    on_loihi = kind.startswith("loihi")
    name = f"{target}/{'loihi' if on_loihi else 'spiking'}"
    report = validated(source, network, path, data="digits", targets={name: 4})
    ours, theirs = report["recorded/board"], report[name]
    assert report.verdicts["recorded/board"].words == report.verdicts[name].words
    # On Loihi saturations are not recorded, and equal integers have no divergence of their own.
    for figure in set(FIGURES) - ({"saturations", "divergence"} if on_loihi else set()):
        assert getattr(ours, figure) == getattr(theirs, figure), figure
    assert ours.specification is not None and ours.specification.equal
    assert not ours.variants
    assert kind != "loihi" or ours.equal_to.equal


@pytest.mark.parametrize("spikes", [True, False])
def test_exchanged_states_of_a_chip_are_named(chip, of_chip, spikes):
    arrays = {
        n: v
        for n, v in of_chip.items()
        if spikes or not n.startswith(("spikes", "counts", "events"))
    }
    m = arrays["m"].copy()
    m[..., [2, 9]] = m[..., [9, 2]]
    found = examined(chip, {**arrays, "m": m})
    assert not found.equal and found.residuals
    assert any("2 and 9" in words and "exchanged" in words for words in found.faults[:3])


@pytest.mark.parametrize("kind", ["population of a memory: dead", "neuron of units: stuck"])
def test_a_fault_of_a_graph_is_named_from_its_recording(graph, kind):
    planted = planted_chips.GRAPH_KINDS[kind](graph, np.random.default_rng(2))
    parts, spikes = planted_chips.record_graph(planted, inputs(), 9)
    arrays = {f"states/{name}": values for name, values in parts.items()}
    arrays |= {f"spikes/{name}": raster for name, raster in spikes.rasters.items()}
    arrays |= {f"counts/{name}": counts for name, counts in spikes.counts.items()}
    run = recorded(graph, arrays)  # without y: the host computes it from what it reads
    assert run.notes == ("The outputs were computed from the recorded states.",)
    found = examine(run, graph, inputs())
    assert not found.equal
    (place, index), *_ = planted.places
    assert place.partition("/")[0] in found.faults[0] and str(index) in found.faults[0]


def test_outputs_that_do_not_follow_from_the_states_are_found(chip, of_chip):
    y = of_chip["y"].copy()
    y[3, -1, [0, 1]] = y[3, -1, [1, 0]]
    found = examined(chip, {**of_chip, "y": y})
    assert not found.equal and not found.residuals and found.different == 2
    assert found.faults == [
        "Outputs of 1 sample, the first of which is sample 3, do not follow from the recorded "
        "states."
    ]
    single = {**of_chip, "y": of_chip["y"].astype(np.float32)}
    assert examined(chip, single).equal


def test_counts_that_are_not_those_of_the_listed_spikes_are_found(chip, of_chip):
    events = of_chip["events/layer0/memory"].copy()
    events[0, 2] += 7
    found = examined(chip, {**of_chip, "events/layer0/memory": events})
    assert found.different == 7
    assert "spikes of layer0/memory in the first 6 samples" in found.faults[0]


@pytest.mark.parametrize("kept", [("y", "m"), ("m",), ("y", "states/layer0/memory"), ("y", "h")])
def test_some_of_the_arrays_of_a_chip_are_enough(chip, of_chip, kept):
    everything = {**of_chip, "states/layer0/memory": of_chip["m"]}
    arrays = {name: everything[name] for name in kept}
    run, whole = recorded(chip, arrays), recorded(chip, of_chip)
    assert np.allclose(run.outputs, whole.outputs, rtol=1e-12, atol=1e-14)
    found = examine(run, chip, inputs())
    if kept == ("y", "h"):
        assert found is None
    else:
        assert found is not None and found.equal and found.values
        assert np.array_equal(run.states.m, whole.states.m)


def test_integers_with_scales_are_real_states(chip, of_chip):
    scale = np.abs(of_chip["m"]).max(axis=(0, 1)) / 30_000
    codes = np.rint(of_chip["m"] / scale).astype(np.int16)
    run = recorded(chip, {"y": of_chip["y"], "m": codes, "m_scale": scale})
    assert np.abs(run.states.m - of_chip["m"]).max() <= scale.max()
    assert examine(run, chip, inputs()).residuals == 0


def test_drives_alone_are_enough_for_a_graph(graph, of_graph):
    names = [n for n in of_graph if n.endswith(("/drive", "/read")) or n.startswith("states/m")]
    run, whole = (recorded(graph, a) for a in ({n: of_graph[n] for n in names}, of_graph))
    assert np.allclose(run.outputs, whole.outputs, rtol=1e-12, atol=1e-14)
    assert np.array_equal(run.states.m, whole.states.m)
    assert np.array_equal(run.states.parts["u1"], whole.states.parts["u1"])
    assert examine(run, graph, inputs()).equal
    one = {"y": of_graph["y"], "states/m1": of_graph["states/m1"]}
    assert examined(graph, one).values == of_graph["states/m1"][:6].size


def test_the_first_memory_of_two_can_be_recorded_alone():
    rng = np.random.default_rng(0)

    def layer(n_in: int) -> LMULayer:
        hidden = Hidden(rng.normal(size=(6, 4)) / 2, None, None, np.zeros(4), "tanh")
        encoders = rng.normal(size=(n_in, 2))
        return LMULayer(encoders, None, None, None, Memory.legendre(3, 6.0, 2), hidden)

    network = LMUNetwork((layer(8), layer(4)), Readout(rng.normal(size=(4, 10)), None), False)
    chip = ld.spike(network, "digits", units="host", membrane_noise=0.05, **SMALL)
    run = ld.run(chip, inputs(), target="brian2", record=True, reference=False)
    first = run.states.m[..., :6]
    arrays = {"y": run.states.y, f"states/{chip.place(0, 'memory')}": first}
    found = examined(chip, arrays)
    assert found.equal and found.values == first.size
    arrays[f"states/{chip.place(0, 'memory')}"] = first[..., [1, 0, 2, 3, 4, 5]]
    assert not examined(chip, arrays).equal


def test_a_list_of_events_is_the_raster_the_counts_and_the_operations(graph):
    run = ld.run(graph, inputs(1), target="spiking", record=True, reference=False)
    lists = dict[str, np.ndarray]()
    for name in run.rasters:
        steps, neurons = np.nonzero(run.rasters[name])
        lists[f"aer/{name}"] = np.stack([np.zeros_like(steps), steps, neurons], axis=1)
    alone = {"y": run.outputs, **lists}
    found = RecordedTarget(Recording("board", alone)).run(graph, inputs(1), record=True)
    for name, raster in run.rasters.items():
        assert np.array_equal(found.rasters[name], raster)
        assert np.array_equal(found.events[name], run.events[name])
        assert np.array_equal(found.counts[name], run.counts[name])
    assert found.synops == run.synops > 0


def test_counts_of_more_samples_are_compared(graph, of_graph):
    counts = {n: v for n, v in of_graph.items() if n.startswith("counts/")}
    assert {n.partition("/")[2] for n in counts} == {"m1", "u1", "m2"}
    assert all(len(each) == 6 for each in counts.values())
    healthy = {n: v for n, v in of_graph.items() if not n.startswith("spikes/")}
    assert examined(graph, healthy).equal
    dead = counts["counts/m2"].copy()
    neuron = int(dead.sum(axis=(0, 1)).argmax())
    dead[..., neuron] = 0
    events = {"events/m2": dead.sum(axis=2)}
    found = examined(graph, {**healthy, "counts/m2": dead, **events})
    j, n = divmod(neuron, SMALL["neurons_per_state"])
    assert found.faults[0].startswith(f"Neuron {n} of population {j} of m2 never spikes")
    found = examined(graph, {**healthy, "events/m2": of_graph["events/m2"] + 1})
    assert "spikes of m2 in the first 6 samples" in found.faults[0]


def test_rounded_states_are_not_compared_with_spikes_exactly(chip, of_chip):
    scale = np.abs(of_chip["m"]).max(axis=(0, 1)) / 30_000
    codes = np.rint(of_chip["m"] / scale).astype(np.int16)
    arrays = {**of_chip, "m": codes, "m_scale": scale}
    run = recorded(chip, arrays)
    assert not run.rasters and "so these were not compared" in run.notes[0]
    found = examine(run, chip, inputs())
    assert not found.residuals
    assert found.values > codes.size  # and the counts


def test_an_integer_on_loihi_that_is_wrong_is_found(loihi, tmp_path):
    arrays = arrays_of(loihi, "spiking", tmp_path / "board.npz")
    assert arrays["m"].dtype == np.int32
    found = examined(loihi, arrays)
    assert found.equal and found.values == arrays["m"].size
    reals = {"y": arrays["y"], "m": arrays["m"] * arrays["m_scale"]}
    assert examined(loihi, reals).values == found.values
    m = arrays["m"].copy()
    m[4, 5, 11] += 1
    found = examined(loihi, {**arrays, "m": m})
    assert found.different == 1
    assert (found.first.sample, found.first.step, found.first.neuron) == (4, 5, 11)
    assert found.faults[0].startswith("State 11 of layer0/memory is ")
    wrong = arrays["y"].copy()
    wrong[2] *= 1.01
    found = examined(loihi, {**arrays, "y": wrong})
    assert found.faults[0].startswith("Outputs of 1 sample, the first of which is sample 2, are")
    counts = arrays["events/layer0/memory"].copy()
    counts[1, 1] += 1
    assert examined(loihi, {**arrays, "events/layer0/memory": counts}).different == 1


def test_graphs_on_loihi_are_compared_with_their_specification():
    rng = np.random.default_rng(5)
    x = rng.uniform(-1.0, 1.0, (40, 6, 2))
    graph = ld.spike(two_blocks(rng), ld.Dataset(x, np.zeros(40, int), x, np.zeros(40, int)),
                     profile="loihi1", **SMALL)  # fmt: skip
    run = ld.run(graph, x[:3], target="spiking", record=True, reference=False)
    parts = {f"states/{name}": values for name, values in run.states.parts.items()}
    target = RecordedTarget(Recording("board", {"y": run.states.y, **parts}))
    found = examine(target.run(graph, x[:3], record=True), graph, x[:3])
    assert found.equal and found.values == 3 * 6 * 8
    between = {**parts, "states/block.0.memory": parts["states/block.0.memory"] * 1.001}
    target = RecordedTarget(Recording("board", {"y": run.states.y, **between}))
    found = examine(target.run(graph, x[:3], record=True), graph, x[:3])
    assert found.values == 3 * 6 * 4 and "no whole multiples" in found.faults[-1]
    name = "states/block.1.memory"
    parts[name] = parts[name].copy()
    parts[name][2, 4, 1] += graph["block.1.memory"].scales[1] / 2**16
    target = RecordedTarget(Recording("board", {"y": run.states.y, **parts}))
    found = examine(target.run(graph, x[:3], record=True), graph, x[:3])
    assert found.first.population == "block.1.memory" and found.different >= 1


def test_pipelines_fail_where_a_chip_was_not_compared(chip, of_chip):
    y = Recording("board", {"y": of_chip["y"]})
    report = validated(DIGITS, chip, y)
    assert report["recorded/board"].specification is None
    with pytest.raises(RunError, match="was not compared with its network file"):
        validated(DIGITS, chip, y, targets={"brian2": 4}, must_equal=True)


def test_the_form_of_the_network_is_chosen_or_asked_for(chip, of_chip, tmp_path):
    integer = ld.quantize(DIGITS)
    run = ld.run(integer, limit=6, record=True, reference=False)
    both = {"use": [integer, chip], "targets": {"brian2": 4, "integer": None}}
    of_integers = Recording("board", {"y": run.states.y, "states/layer0/hidden": run.states.h})
    assert validated(DIGITS, None, Recording("chip", of_chip), **both)["recorded/chip"].neurons
    report = validated(DIGITS, None, of_integers, targets=["integer"], use=[integer])
    assert report["recorded/board"].specification.equal
    path = tmp_path / "board.npz"
    np.savez(path, y=of_chip["y"])
    with pytest.raises(InputError, match="may be of the integer or the spiking network; say which"):
        validated(DIGITS, None, path, **both)
    report = validated(DIGITS, None, f"spiking={path}", **both)
    assert report["recorded/board"].sizes.representation == "SpikingNetwork"
    with pytest.raises(InputError, match="the form 'float' is not possible"):
        validated(DIGITS, chip, f"float={path}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"states/elsewhere": np.zeros((6, 8, 2))}, "names no part of the network"),
        ({"spikes/layer0/hidden": np.zeros((160, 60))}, "names no part of the network"),
        ({"m": np.zeros((6, 8, 15))}, "m has shape"),
        ({"m": np.full((6, 8, 16), np.inf)}, "not finite"),
        ({"m_scale": np.array(0.0)}, "m_scale must be a positive number"),
        ({"events/layer0/memory": np.zeros((6, 7), int)}, "events/layer0/memory has shape"),
        ({"spikes/layer0/memory": np.zeros((10, 256), int)}, "sample 0 needs"),
        ({"spikes/layer0/memory": np.full((160, 256), 2)}, "must be 1 where a neuron spikes"),
        ({"counts/layer0/memory": np.zeros((2, 8, 255), int)}, "samples, presentations and neur"),
        ({"counts/layer0/memory": np.full((2, 8, 256), 21)}, "from 0 to 20, the chip steps"),
        ({"counts/layer0/memory": np.zeros((2, 8, 256))}, "must be whole numbers of spikes"),
        ({"aer/layer0/memory": np.zeros((5, 2), int)}, "must have a row"),
        ({"aer/layer0/memory": np.zeros((5, 3))}, "of whole numbers"),
        ({"aer/layer0/memory": np.array([[0, 0, 256]])}, "event of neuron 256, and there are 256"),
        ({"aer/layer0/memory": np.array([[0, -1, 0]])}, "event of chip step -1"),
        ({"aer/layer0/memory": np.zeros((2, 3), int)}, "has a spike twice"),
        ({"aer/layer0/memory": np.array([[6, 0, 0]])}, "event of sample 6, and there are 6"),
        ({"y": None, "m": None}, "no outputs y"),
    ],
)
def test_what_does_not_fit_a_chip_is_refused_in_one_sentence(chip, of_chip, changed, message):
    arrays = {name: values for name, values in {**of_chip, **changed}.items() if values is not None}
    with pytest.raises(InputError, match=message) as raised:
        recorded(chip, arrays)
    assert "\n" not in str(raised.value)


def test_units_on_neurons_send_outputs_that_the_host_does_not_know(tmp_path):
    hidden = Hidden(np.random.default_rng(1).normal(size=(6, 4)) / 2, None, None, None, "tanh")
    memory = Memory.legendre(3, 6.0, 2)
    layer = LMULayer(np.ones((8, 2)) / 8, None, None, None, memory, hidden)
    network = LMUNetwork((layer,), Readout(np.ones((4, 10)), None), False)
    chip = ld.spike(network, "digits", units="chip", membrane_noise=0.05, **SMALL)
    arrays = arrays_of(chip, "brian2", tmp_path / "board.npz")
    assert "spikes/layer0/hidden" in arrays
    assert examined(chip, arrays).equal
    with pytest.raises(InputError, match="no outputs y"):
        recorded(chip, {"m": arrays["m"]})
    last = {"y": arrays["y"][:, -1], "m": arrays["m"]}
    run = recorded(chip, last)
    assert np.array_equal(run.outputs, arrays["y"][:6, -1]) and not run.states.m.size
    assert examine(run, chip, inputs()).equal
    assert replace(run).neurons == recorded(chip, arrays).neurons
