"""Recorded values of a target compared with the specification of its network.

Every integer of an integer network, and every state of one on Loihi's neurons, is compared with a
run of the specification on the same samples. An analog chip is one draw of what its file describes:
its recording is replayed statistically (:mod:`lmu_deploy.fidelity.replay.chip_replay`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Population
from lmu_deploy.core.representation import counted
from lmu_deploy.core.spiking.graph import AnalogNetwork, OnLoihi
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.fidelity import schema
from lmu_deploy.fidelity.replay.chip_replay import replay_chip, replay_graph
from lmu_deploy.fidelity.replay.chip_spikes import FALSE_ALARMS
from lmu_deploy.fidelity.replay.faults import explain, of_samples
from lmu_deploy.fidelity.replay.integers import Fault, Replay, misrecorded, recorded_parts
from lmu_deploy.fidelity.streaming import counted_of
from targets.base import Run, States
from targets.integer import IntegerTarget
from targets.recorded.file import WHOLE
from targets.recorded.layout import host_outputs, parts_of, unit_of
from targets.spiking.target import SpikingTarget

_LAST_BITS = 1e-9
"""Difference of outputs that the host computes in another order, relative to the largest."""
_SINGLE = 1e-5
"""Difference of outputs that are computed in single precision, relative to the largest."""
_MOST_REPLAYED = 32
_PRODUCTS, _UPDATES = 4e9, 2e8
"""Products of weights and messages in a replay, and updates of neurons: a few seconds."""


def affordable(network: IntegerNetwork, steps: int) -> int:
    """Return how many samples a replay of a few seconds takes, 1 to 32."""
    weights = sum(edge.connection.slices.size for edge in network.edges)
    return int(max(1, min(_MOST_REPLAYED, _PRODUCTS / max(1, steps * weights))))


def examine(run: Run, network: object, inputs: np.ndarray) -> schema.Specification | None:
    """Compare what a target recorded with the specification; see :func:`examined`."""
    found = examined(run, network, inputs)
    return None if found is None else found[0]


def examined(
    run: Run, network: object, inputs: np.ndarray
) -> tuple[schema.Specification, list[Fault]] | None:
    """Compare what a target recorded with the specification, and explain the differences.

    Parameters
    ----------
    run : Run
    network : object
        The network that the target was given.
    inputs : ndarray, shape (samples, steps, n_in)
        Of the run.

    Returns
    -------
    (Specification, list of Fault), or None
        None unless integers of an integer network or on Loihi's neurons were recorded, or states of
        an analog chip.
    """
    if run.states is None:
        return None
    if isinstance(network, AnalogNetwork):
        return _examine_chip(run, run.states, network, inputs)
    if isinstance(network, OnLoihi):
        return _examine_loihi(run, run.states, network, inputs)
    if isinstance(network, IntegerNetwork):
        return _examine_integers(run, run.states, network, inputs)
    return None


def _examine_integers(
    run: Run, states: States, network: IntegerNetwork, inputs: np.ndarray
) -> tuple[schema.Specification, list[Fault]] | None:
    recorded = recorded_parts(network, states)
    integers = {p: v for p, v in recorded.items() if isinstance(network[p], Population)}
    if not integers:
        return None
    count = len(next(iter(integers.values())))
    inputs = inputs[:count]
    expected = IntegerTarget().run(network, inputs, record=True)
    assert expected.states is not None
    truth = recorded_parts(network, expected.states)
    wrong = np.zeros(count, np.int64)
    for place, values in integers.items():
        wrong += np.count_nonzero(values != truth[place], axis=(1, 2))
    some = affordable(network, inputs.shape[1])
    chosen = np.flatnonzero(wrong)[:some] if wrong.any() else np.arange(min(some, count))
    replay = Replay(
        network, inputs[chosen], {p: v[chosen] for p, v in recorded.items()}, numbers=chosen
    )
    first = replay.first
    right = {p: truth[p][chosen] for p in integers}
    others = list[Fault]()
    if wrong.any():
        faults = misrecorded(replay, right) or of_samples(network, inputs, integers, truth)
        faults = faults or explain(replay)
    else:
        faults = others = _beside_states(run, expected, network, count)
    specification = schema.Specification(
        samples=count,
        values=sum(values.size for values in integers.values()),
        different=int(wrong.sum()) + sum(fault.wrong for fault in others),
        replayed=len(chosen),
        predicted=replay.values,
        residuals=replay.different,
        first=None
        if first is None
        else schema.Residual(
            sample=first.sample,
            step=first.step,
            population=str(first.place),
            neuron=first.neuron,
            recorded=first.recorded,
            predicted=first.predicted,
        ),
        faults=[fault.words for fault in faults],
    )
    return specification, faults


def _beside_states(run: Run, expected: Run, network: IntegerNetwork, count: int) -> list[Fault]:
    """Return what is wrong, or not compared, although all recorded integers are right.

    Outputs may differ in the last bits where nodes on the host compute them.
    """
    single = run.outputs.dtype == np.float32
    size = max(float(np.abs(expected.outputs).max(initial=0.0)), network.y_scale)
    least = _SINGLE if single else _LAST_BITS
    what = "are not those of the specification, although the recorded integers are"
    found = _wrong_outputs(run.outputs[:count], expected.outputs, least * size, what)
    found += _wrong_counts(run, expected, count)
    recorded = {} if run.states is None else run.states.parts
    missing = [str(p.place) for p in network.on_chip[1:] if str(p.place) not in recorded]
    if missing:
        words = f"Not recorded, and compared by the outputs alone: {', '.join(missing)}."
        found.append(Fault("not recorded", "", (), words))
    return found


def _wrong_outputs(
    outputs: np.ndarray, expected: np.ndarray, least: float, what: str
) -> list[Fault]:
    """Return a statement on outputs that differ by more than `least`."""
    off = np.abs(outputs.astype(np.float64) - expected) > least
    if not off.any():
        return []
    samples = np.flatnonzero(off.reshape(len(off), -1).any(axis=1))
    words = (
        f"Outputs of {counted(len(samples), 'sample')}, the first of which is sample {samples[0]}, "
        f"{what}."
    )
    return [Fault("outputs", "outputs", (), words, int(off.sum()))]


def _wrong_counts(run: Run, expected: Run, count: int) -> list[Fault]:
    """Return statements on numbers of events that are not those of the specification."""
    sums, found = counted_of(run), list[Fault]()
    for name, events in expected.events.items():
        if name not in sums or sums[name].by_step.shape != events.shape[1:]:
            continue
        have, need = int(sums[name].by_sample[:count].sum()), int(events.sum())
        if have != need:
            words = f"The run reports {have:,} messages of {name}, and its integers make {need:,}."
            found.append(Fault("events", name, (), words, abs(have - need)))
    return found


def _examine_chip(
    run: Run, states: States, network: AnalogNetwork, inputs: np.ndarray
) -> tuple[schema.Specification, list[Fault]] | None:
    """Compare a recorded analog chip with what its network file predicts from state to state."""
    inputs = inputs[: len(states.y)]
    if isinstance(network, SpikingNetwork):
        m = states.m if states.m.size else _first_memories(network, states.parts)
        found = replay_chip(network, inputs, m, run.rasters, counts=run.counts)
    else:
        found = replay_graph(network, inputs, states.parts, run.rasters, counts=run.counts)
    if found is None:
        return None
    others = [] if found.faults else _beside_chip(run, states, network, inputs)
    specification = schema.Specification(
        samples=len(states.y),
        values=found.values,
        different=sum(fault.wrong for fault in others),
        replayed=found.samples,
        predicted=found.values,
        residuals=found.beyond,
        faults=[fault.words for fault in (*found.faults, *others)],
        false_alarms=FALSE_ALARMS,
        blind=list(found.blind),
    )
    return specification, [*found.faults, *others]


def _examine_loihi(
    run: Run, states: States, network: OnLoihi, inputs: np.ndarray
) -> tuple[schema.Specification, list[Fault]] | None:
    """Compare the states of memories, which are integers, with those of target `spiking`."""
    each = network.neurons * network.steps_per_presentation * inputs.shape[1]
    count = min(len(states.y), max(1, int(_UPDATES / each)))
    expected = SpikingTarget().run(network, inputs[:count], record=True)
    assert expected.states is not None
    truth, recorded = parts_of(network, expected.states), parts_of(network, states)
    first, faults, beside, values = None, list[Fault](), list[Fault](), 0
    for name in truth:
        unit = unit_of(network, name)
        if unit is None or name not in recorded:
            continue
        mine, theirs = (part[name][:count] / unit for part in (recorded, truth))
        if np.abs(mine - np.rint(mine)).max(initial=0.0) > WHOLE:
            words = f"The states of {name} are no whole multiples of its unit, and not compared."
            beside.append(Fault("not recorded", name, (), words))
            continue
        mine, theirs = np.rint(mine), np.rint(theirs)
        values += mine.size
        if not (wrong := np.argwhere(mine != theirs)).size:
            continue
        sample, step, i = (int(v) for v in wrong[wrong[:, 1].argmin()])
        have, need = int(mine[sample, step, i]), int(theirs[sample, step, i])
        words = (
            f"State {i} of {name} is {have:,} instead of {need:,} at step {step} of sample "
            f"{sample}; nothing of {name} was wrong at an earlier step."
        )
        faults.append(Fault("state", name, (i,), words, len(wrong)))
        first = first or schema.Residual(
            sample=sample, step=step, population=name, neuron=i, recorded=have, predicted=need
        )
    if not values:
        return None
    if not faults:
        size = max(float(np.abs(expected.outputs).max(initial=0.0)), 1e-12)
        what = "are not those of the specification, although the recorded states are"
        faults = _wrong_outputs(run.outputs[:count], expected.outputs, _SINGLE * size, what)
        faults += _wrong_counts(run, expected, count)
    faults += beside
    specification = schema.Specification(
        samples=count,
        values=values,
        different=sum(fault.wrong for fault in faults),
        replayed=0,
        predicted=0,
        residuals=0,
        first=first,
        faults=[fault.words for fault in faults],
    )
    return specification, faults


def _beside_chip(
    run: Run, states: States, network: AnalogNetwork, inputs: np.ndarray
) -> list[Fault]:
    """Return what is wrong although the states follow from each other.

    What the host computes from them may be computed in single precision.
    """
    found, count = list[Fault](), len(states.y)
    expected = host_outputs(network, inputs, parts_of(network, states))
    if expected is not None:
        expected = expected if network.return_sequences else expected[:, -1]
        least = _SINGLE * max(float(np.abs(expected).max(initial=0.0)), 1e-12)
        what = "do not follow from the recorded states"
        found += _wrong_outputs(run.outputs[:count], expected, least, what)
    for name, sums in counted_of(run).items():
        listed = run.counts[name] if name in run.counts else run.rasters.get(name)
        if listed is None:
            continue
        samples = len(run.counts[name]) if name in run.counts else 1
        have, need = int(sums.by_sample[:samples].sum()), int(listed.sum())
        if have != need:
            which = counted(samples, "sample") if samples > 1 else "sample"
            words = (
                f"The run reports {have:,} spikes of {name} in the first {which}, and {need:,} are "
                "recorded."
            )
            found.append(Fault("events", name, (), words, abs(have - need)))
    return found


def _first_memories(network: SpikingNetwork, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the states of all memories, or of those before the first that was not recorded."""
    found = list[np.ndarray]()
    for number, memory in enumerate(network.memories):
        if memory is None:
            continue
        if (name := str(network.place(number, "memory"))) not in parts:
            break
        found.append(parts[name])
    return np.concatenate(found, axis=2) if found else np.zeros((0, 0, 0))
