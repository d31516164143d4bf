"""Sigma-delta messages: states follow from held messages, events from their changes."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
from layered import layered, relayered
from needs import ENGINES
from safetensors import safe_open
from safetensors.numpy import save_file

from converters.quantize import quantize
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import load, save
from lmu_deploy.core.integer.functions import PiecewiseLinear
from lmu_deploy.core.integer.graph import edges, outlets, with_thresholds
from lmu_deploy.core.integer.network import INTEGER_CLASSES, IntegerNetwork
from lmu_deploy.core.integer.parts import Format, Place
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from targets.base import get_target
from targets.integer import IntegerTarget, step
from targets.integer.numpy_engine import NumpyEngine
from targets.lava.neurons import Axon

STEPS = 24
REALIZATIONS = ("dense-incremental", "schur", "sign-taylor")


def trained_like(rng, feedback=True) -> LMUNetwork:
    """A network of one layer, with every connection that there is, or without feedback."""

    def array(*shape):
        return rng.normal(size=shape) / np.sqrt(shape[0])

    layer = LMULayer(
        array(2, 1),
        0.2 * array(5, 1) if feedback else None,
        0.1 * array(4, 1) if feedback else None,
        None,
        Memory.legendre(4, 12.0),
        Hidden(array(4, 5), array(2, 5), 0.5 * array(5, 5), None, "tanh"),
    )
    return LMUNetwork((layer,), Readout(array(5, 3), None), return_sequences=True)


def slow_inputs(rng, samples=3) -> np.ndarray:
    """Inputs that wander, stay, and fall silent."""
    inputs = np.cumsum(rng.normal(size=(samples, STEPS, 2)), axis=1) / 4.0
    inputs[:, 8:12] = inputs[:, 8:9]
    inputs[:, 16:19] = 0.0
    return inputs


def network_and_inputs(
    realization="dense-incremental", thresholds=None, feedback=True
) -> tuple[IntegerNetwork, np.ndarray]:
    rng = np.random.default_rng(7)
    source, inputs = trained_like(rng, feedback), slow_inputs(rng)
    network = quantize(source, inputs, realization=realization)
    return with_thresholds(network, thresholds or {}), inputs


def mixed(network: IntegerNetwork) -> IntegerNetwork:
    """Thresholds of every kind: none, exact, equal and different ones of a population."""
    cycle = (0, 1, 40, 40, 7, 2, 3)
    places = [edge.place for edge in network.edges]
    return with_thresholds(network, dict(zip(places, cycle, strict=False)))


def messages(network: IntegerNetwork, run, inputs) -> dict[Place, np.ndarray]:
    """What each population would send at every step, from the recorded states."""
    limit = network.input.message.limit
    memory = layered(network).layers[0].memory
    m = run.states.m.astype(np.int64)
    half = (1 << memory.message_shift) >> 1
    sent = (m + half) >> memory.message_shift
    return {
        Place("input"): np.clip(np.rint(inputs / network.input.scale), -limit, limit).astype(int),
        Place("layer0", "memory"): np.clip(sent, -memory.message.limit, memory.message.limit),
        Place("layer0", "hidden"): run.states.h.astype(np.int64),
    }


def held_and_sent(q: np.ndarray, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Held messages and events of every step, neuron by neuron, by the equations of the page."""
    held, sent = np.zeros_like(q), np.zeros_like(q)
    for sample, neuron in np.ndindex(q.shape[0], q.shape[2]):
        last = 0
        for t in range(q.shape[1]):
            change = int(q[sample, t, neuron]) - last
            if threshold and abs(change) >= threshold:
                sent[sample, t, neuron] = change
                last += change
            held[sample, t, neuron] = last if threshold else q[sample, t, neuron]
    return held, sent if threshold else q


def drive(connection, held: np.ndarray) -> np.ndarray:
    """D of held messages, (samples, steps, n_out); nothing may saturate here."""
    total = 0
    for weights, gain, shift in zip(
        connection.slices, connection.multiplier, connection.shift, strict=True
    ):
        half = (1 << shift.astype(np.int64)) >> 1
        total = total + ((held @ weights.T.astype(np.int64) * gain + half) >> shift)
    return total


def wrong(network: IntegerNetwork, inputs: np.ndarray, run) -> list[str]:
    """What of a run of integrators does not follow from the states one step before."""
    q = messages(network, run, inputs)
    memory, hidden = layered(network).layers[0].memory, layered(network).layers[0].hidden
    held, events, synops, carried = {}, {}, 0, {}
    for outlet in outlets(network):
        held_now, sent = held_and_sent(q[outlet.source], outlet.threshold)
        counts = np.count_nonzero(sent, axis=2)
        events[str(outlet.source)] = events.get(str(outlet.source), 0) + counts
        for edge in outlet.edges:
            held[edge.place] = held_now
            carried[edge.place] = int(counts.sum())
            synops += int((np.count_nonzero(sent, axis=(0, 1)) * edge.connection.fan_out).sum())

    def before(values):
        return np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1]], axis=1)

    m = before(run.states.m.astype(np.int64))
    m = m + drive(memory.recurrent, before(held["layer0/memory/recurrent"]))
    m = m + drive(memory.input, held["layer0/memory/input"])
    m = m + drive(memory.hidden, before(held["layer0/memory/hidden"]))
    y = drive(layered(network).readout.connection, held["readout"])
    z = drive(hidden.memory, held["layer0/hidden/memory"])
    z = z + drive(hidden.input, held["layer0/hidden/input"])
    z = z + drive(hidden.recurrent, before(held["layer0/hidden/recurrent"]))
    p, lines = np.abs(z), hidden.activation
    half = (1 << lines.shift) >> 1
    value = ((p[..., None] * lines.slope + half) >> lines.shift) + lines.intercept
    h = np.sign(z) * np.minimum(value.min(axis=-1), hidden.message.limit)
    assert not any(run.saturations.values()), "these equations leave saturation out"
    found = [
        name
        for name, mine, theirs in (
            ("m", m, run.states.m),
            ("h", h, run.states.h),
            ("y", y, run.states.y),
            *((f"events of {name}", counts, run.events[name]) for name, counts in events.items()),
        )
        if not np.array_equal(mine, theirs)
    ]
    found += ["synops"] if synops != run.synops else []
    return found + (["carried"] if carried != dict(run.carried) else [])


@pytest.mark.parametrize("engine", ENGINES)
def test_every_step_follows_from_the_held_messages(engine):
    network, inputs = network_and_inputs()
    for made in (network, mixed(network)):
        run = IntegerTarget(engine).run(made, inputs, record=True)
        assert wrong(made, inputs, run) == []


class SendsBeyondIt(NumpyEngine):
    def suppress(self, values, threshold):
        super().suppress(values, threshold + 1)


class SendsAll(NumpyEngine):
    def suppress(self, values, threshold):
        pass


@pytest.mark.parametrize("fault", [SendsBeyondIt, SendsAll])
def test_a_wrong_threshold_is_detected(fault, monkeypatch):
    network, inputs = network_and_inputs()
    network = mixed(network)
    monkeypatch.setattr("targets.integer.run.choose_engine", lambda *_: fault())
    run = IntegerTarget("numpy").run(network, inputs, record=True)
    assert {"m", "h", "carried", "synops"} <= set(wrong(network, inputs, run))


@pytest.mark.parametrize("realization", REALIZATIONS)
def test_a_threshold_of_one_changes_no_state(realization):
    network, inputs = network_and_inputs(realization)
    places = [edge.place for edge in network.edges]
    plain = IntegerTarget("numpy").run(network, inputs, record=True)
    exact = with_thresholds(network, dict.fromkeys(places, 1))
    changes = IntegerTarget("numpy").run(exact, inputs, record=True)
    for name in "mhy":
        assert np.array_equal(getattr(plain.states, name), getattr(changes.states, name))
    assert changes.saturations == plain.saturations
    assert changes.events["input"].sum() < plain.events["input"].sum(), (
        "inputs that stay are silent"
    )
    coarse = with_thresholds(network, dict.fromkeys(places, 60))
    rough = IntegerTarget("numpy").run(coarse, inputs, record=True)
    assert not np.array_equal(rough.states.h, plain.states.h)
    assert rough.synops < changes.synops


@pytest.mark.parametrize("realization", REALIZATIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_equals_the_batch_and_does_not_change_earlier_states(engine, realization):
    network, inputs = network_and_inputs(realization)
    network = mixed(network)
    run = IntegerTarget(engine).run(network, inputs, record=True)
    stream = None
    for t in range(inputs.shape[1]):
        earlier = stream
        y, stream = step(network, inputs[:, t], earlier, engine)
        again, _ = step(network, inputs[:, t], earlier, engine)
        assert np.array_equal(y, run.states.y[:, t])
        assert np.array_equal(again, y)


def test_a_delay_line_reads_and_sends_changes():
    network, inputs = network_and_inputs("fir", feedback=False)
    plain = IntegerTarget("numpy").run(network, inputs, record=True)
    places = ("layer0/memory/recurrent", "layer0/hidden/memory")
    for thresholds in ((1, 0), (0, 1), (1, 1)):
        made = with_thresholds(network, dict(zip(places, thresholds, strict=True)))
        run = IntegerTarget("numpy").run(made, inputs, record=True)
        for name in "mhy":
            assert np.array_equal(getattr(plain.states, name), getattr(run.states, name))
        assert set(run.carried) == {edge.place for edge in edges(network)}
    lossy = with_thresholds(network, {places[0]: 30})
    run = IntegerTarget("numpy").run(lossy, inputs, record=True)
    assert not np.array_equal(plain.states.m, run.states.m), "a line that holds back does not move"


def test_the_sender_on_lava_equals_the_bit_exact_simulator():
    network, inputs = network_and_inputs()
    network = mixed(network)
    run = IntegerTarget("numpy").run(network, inputs, record=True)
    for name, q in messages(network, run, inputs).items():
        for outlet in (outlet for outlet in outlets(network) if outlet.source == name):
            _, sent = held_and_sent(q, outlet.threshold)
            axon = Axon(outlet.threshold, np.zeros(q.shape[2], np.int64))
            for sample, t in np.ndindex(*q.shape[:2]):
                events = axon.events(q[sample, t], first=t == 0)
                assert np.array_equal(events, sent[sample, t])


@pytest.mark.parametrize(
    ("library", "target", "realization"),
    [
        ("onnxruntime", "onnxruntime", "sign-taylor"),
        ("onnxruntime", "onnxruntime", "schur"),
        ("lava", "lava", "dense-incremental"),
    ],
)
def test_mixed_thresholds_are_the_same_on_every_target(library, target, realization):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed; run lmu-deploy doctor --fix")
    network, inputs = network_and_inputs(realization)
    network, inputs = mixed(network), inputs[:2, :12]
    simulated = IntegerTarget("numpy").run(network, inputs, record=True)
    other = get_target(target).run(network, inputs, record=True)
    for name in "mhy":
        assert np.array_equal(getattr(simulated.states, name), getattr(other.states, name))
    assert other.synops == simulated.synops
    for name, counts in simulated.events.items():
        assert np.array_equal(other.events[name], counts)
        assert counts.any()


def test_messages_of_any_width_can_change():
    network, inputs = network_and_inputs()
    layer = layered(network).layers[0]
    wide = replace(layer.memory, message=Format(32, 1e-9), message_shift=0)
    network = relayered(network, layers=(replace(layer, memory=wide),))
    network = with_thresholds(network, {"layer0/hidden/memory": 2**31 - 1})
    with pytest.raises(InputError, match="changes on layer0/hidden/memory need 33 bits"):
        IntegerTarget("torch").run(network, inputs)


def test_an_old_file_has_no_thresholds(tmp_path):
    network, _ = network_and_inputs()
    path, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    save(network, path)

    def without(node):
        if isinstance(node, dict):
            return {k: without(v) for k, v in node.items() if k != "threshold"}
        return [without(v) for v in node] if isinstance(node, list) else node

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["lmu_deploy"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, old, metadata={"lmu_deploy": json.dumps(without(header))})
    assert '"threshold"' in json.dumps(header)
    read = edges(load(old, INTEGER_CLASSES))
    assert [edge.connection.threshold for edge in read] == [0] * len(edges(network))


def test_thresholds_are_set_by_place():
    network, _ = network_and_inputs("sign-taylor")
    changed = with_thresholds(network, {"readout": 3, "layer0/series/input": 2})
    found = {edge.place: edge.connection.threshold for edge in edges(changed)}
    assert {place: t for place, t in found.items() if t} == {"readout": 3, "layer0/series/input": 2}
    assert (
        with_thresholds(changed, dict.fromkeys(("readout", "layer0/series/input"), 0)) is not None
    )
    with pytest.raises(InputError, match="no connection layer1/memory; choose one of layer0"):
        with_thresholds(network, {"layer1/memory": 1})
    with pytest.raises(InputError, match="is the sign matrix"):
        with_thresholds(network, {"layer0/series/recurrent": 1})
    with pytest.raises(InputError, match="threshold"):
        with_thresholds(network, {"readout": -1})


def test_a_linear_activation_of_several_lines_is_refused():
    with pytest.raises(InputError, match="kind linear has 2 pieces"):
        PiecewiseLinear(np.array([2, 1]), np.array([0, 5]), 0, "linear")
