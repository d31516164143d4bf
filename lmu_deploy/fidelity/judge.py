"""Evaluation of one target: from its Run and that of the reference to an entry of fidelity.json.

A target may run, or record the states of, fewer samples than the reference. These are the first
samples, and the reference is evaluated on the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import INPUT, Network
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.spiking.graph import AnalogNetwork, OnLoihi
from lmu_deploy.fidelity import schema
from lmu_deploy.fidelity.attribution import Attribution
from lmu_deploy.fidelity.measures.agreement import (
    compare_states,
    deviation,
    is_integer,
)
from lmu_deploy.fidelity.measures.damage import damage
from lmu_deploy.fidelity.measures.divergence import diverge
from lmu_deploy.fidelity.measures.energy import costs_of
from lmu_deploy.fidelity.measures.entries import attribution_entry, divergence_entry, ranges_entry
from lmu_deploy.fidelity.measures.events import count_population
from lmu_deploy.fidelity.measures.memory_error import (
    MemoryShape,
    decode_window,
    delays,
    memory_errors,
    strongest_channel,
)
from lmu_deploy.fidelity.measures.metric import compare, keep_answers, measure
from lmu_deploy.fidelity.measures.ranges import LayerRanges
from lmu_deploy.fidelity.measures.sizes import network_sizes, neurobench_of
from lmu_deploy.fidelity.schema import Divergence, Fit
from lmu_deploy.fidelity.specification import examine
from lmu_deploy.fidelity.store import plain
from lmu_deploy.fidelity.streaming import counted_of
from lmu_deploy.hardware.preflight import check
from lmu_deploy.hardware.profile import AnalogProfile, load_profile
from lmu_deploy.tasks.base import Task
from targets.base import Run, States


def fit_of(network: object) -> Fit | None:
    """Check a network against its chip profile; return None without a known profile.

    Parameters
    ----------
    network : IntegerNetwork, LoihiNetwork or SpikingNetwork
        All rules of :mod:`lmu_deploy.hardware.preflight` for its kind apply.
    """
    if isinstance(network, AnalogNetwork):
        name = network.device.profile
    elif isinstance(network, IntegerNetwork | OnLoihi):
        name = network.profile
    else:
        return None
    try:
        chip = load_profile(name)
    except InputError:
        return None
    if isinstance(network, AnalogNetwork) != isinstance(chip, AnalogProfile):
        return None
    found = [str(violation) for violation in check(network, chip)]
    return Fit(profile=chip.name, title=chip.title, violations=found)


_DIGITS = 5


def judge(
    run: Run,
    reference: Run | None,
    task: Task,
    targets: np.ndarray,
    *,
    network: object = None,
    source: Network | None = None,
    inputs: np.ndarray | None = None,
    integer_peer: Run | None = None,
    variants: Mapping[str, schema.TargetFidelity] | None = None,
    attribution: Attribution | None = None,
    ranges: LayerRanges | None = None,
    seed: int = 0,
    margin: float | None = None,
) -> schema.TargetFidelity:
    """Evaluate the run of a target.

    Parameters
    ----------
    run : Run
        Run on the first samples of the test set.
    reference : Run or None
        Run of target `reference` on at least as many samples; None without a float network.
    task : Task
    targets : ndarray, shape (at least samples, ...)
        The desired outputs.
    network : Network, IntegerNetwork or SpikingNetwork, optional
        The network that the target ran, for its sizes, costs and fit to a chip.
    source : Network, optional
        The float network, which defines the memory states.
    inputs : ndarray, shape (at least samples, steps, n_in), optional
        Inputs of the run, with which recorded integers are compared with the specification.
    integer_peer : Run, optional
        Run of another integer target on the same network; the recorded states must be equal.
    variants : mapping of name to TargetFidelity, optional
        The same target with other settings, such as without calibration.
    attribution : Attribution, optional
        Attribution of the errors to their sources.
    ranges : LayerRanges, optional
        Ranges of signals, weights and sums.
    seed : int
        Seed of the bootstrap.
    margin : float, optional
        Of equivalence; see :func:`lmu_deploy.fidelity.measures.metric.compare`.

    Raises
    ------
    InputError
        When the runs and the desired outputs do not match.
    RunError
        When outputs are NaN or infinite.
    """
    samples = len(run.outputs)
    if len(targets) < samples or (reference is not None and len(reference.outputs) < samples):
        have = len(targets) if reference is None else min(len(targets), len(reference.outputs))
        raise InputError(
            f"target {run.target} ran {samples} samples, but only {have} can be evaluated; "
            "run the reference on as many."
        )
    answers = targets[:samples]
    one_class = task.kind == "classification" and not task.every_step
    populations = _populations(run, answers if one_class else None)
    total = sum(p.events for p in populations.values())
    sizes = network_sizes(network)
    truth = None if reference is None else reference.states
    equal = _equal(run, integer_peer)
    counted = run.synops > 0 or not total  # a recording may have events without their operations
    against = None
    if reference is not None:
        against = compare(run.outputs, reference.outputs[:samples], answers, task, seed, margin)
    return schema.TargetFidelity(
        target=run.target,
        samples=samples,
        steps=run.steps,
        chip_steps=run.chip_steps,
        wall_seconds=run.wall_seconds,
        seed=run.seed,
        metric=measure(run.outputs, answers, task, seed),
        reference=against,
        events=schema.Events(
            total=total,
            per_sample=total / samples,
            per_step=total / (samples * run.steps),
            by_population={name: p.events for name, p in populations.items()},
        ),
        populations=populations,
        synops=int(run.synops),
        synops_per_sample=run.synops / samples,
        saturations={place: int(n) for place, n in run.saturations.items()},
        neurons={name: int(n) for name, n in run.neurons.items()},
        sizes=None if sizes is None else schema.Sizes(**asdict(sizes)),
        memory_error=_memory(run.states, truth, source),
        window=window_of(run.states, truth, source),
        equal_to=equal,
        specification=None if inputs is None else examine(run, network, inputs),
        damage=[] if inputs is None else _damage(network),
        attribution=_attributed(attribution, run, reference, task),
        divergence=None if equal and equal.equal else _divergence(run.states, truth, source),
        ranges=None if ranges is None else ranges_entry(ranges),
        costs=costs_of(run, network) if counted else None,
        fit=fit_of(network),
        answers=keep_answers(run.outputs, answers, task),
        neurobench=neurobench_of(run, network) if counted else None,
        notes=list(run.notes),
        settings=plain(run.settings),
        variants=dict(variants or {}),
    )


def _damage(network: object) -> list[str]:
    """Return statements on weights that no rounding of the float network can have given."""
    return [f.words for f in damage(network)] if isinstance(network, IntegerNetwork) else []


def _attributed(
    found: Attribution | None, run: Run, reference: Run | None, task: Task
) -> schema.Attribution | None:
    """Return the entry of an attribution, with the error that the target had on its samples."""
    if found is None:
        return None
    both = min(found.samples, len(run.outputs))
    if reference is None or both < found.samples:
        return attribution_entry(found)
    measured = deviation(run.outputs[:both], reference.outputs[:both], task.washout)
    return attribution_entry(found, measured)


def _populations(run: Run, classes: np.ndarray | None) -> dict[str, schema.Population]:
    found = {}
    for name, counts in counted_of(run).items():
        events = count_population(counts, run.neurons.get(name), run.rasters.get(name), classes)
        found[name] = schema.Population(
            neurons=events.neurons,
            events=events.total,
            per_sample=events.per_sample,
            rate=events.rate,
            silent=events.silent,
            by_step=rounded(events.by_step),
            by_class=None if events.by_class is None else dict(events.by_class),
            intervals=None if events.intervals is None else events.intervals.tolist(),
        )
    return found


def _memory(
    states: States | None, reference: States | None, source: Network | None
) -> schema.MemoryFidelity | None:
    if states is None or reference is None or source is None or not states.m.size:
        return None
    shapes = [
        MemoryShape(name, memory.channels, memory.order) for name, memory in source.memories.items()
    ]
    samples = min(len(states.m), len(reference.m))
    layers = memory_errors(states.m[:samples], states.m_scale, reference.m, shapes, states.m_basis)
    return schema.MemoryFidelity(
        samples=samples,
        overall={e.layer: e.overall for e in layers},
        by_step={e.layer: None if e.by_step is None else rounded(e.by_step) for e in layers},
        by_order={
            e.layer: [None if np.isnan(v) else v for v in rounded(e.by_order)] for e in layers
        },
    )


def _divergence(
    states: States | None, reference: States | None, source: Network | None
) -> Divergence | None:
    """Return the entry of the divergence; None without recorded states."""
    if states is None or reference is None or source is None or not states.m.size:
        return None
    return divergence_entry(diverge(states, reference, source))


def window_of(
    states: States | None, reference: States | None, source: Network | None
) -> schema.Window | None:
    """Decode the window of one channel of the first node after the last step of sample 0.

    It is None where the first node has no memory or does not take the network's input.

    The channel is the one with the largest states in the reference, the same for all targets.
    """
    if states is None or reference is None or source is None or not states.m.size:
        return None
    first = source.nodes[0]
    memory = source.memories.get(first.name)
    if memory is None or first.inputs != (INPUT,):
        return None
    channel = strongest_channel(reference.m[0, -1, : memory.size], memory)
    decoded = decode_window(states.real_m(slice(0, 1))[0, -1, : memory.size], memory, channel)
    return schema.Window(
        channel=channel, delays=rounded(delays(memory.theta)), decoded=rounded(decoded)
    )


def _equal(run: Run, peer: Run | None) -> schema.Equality | None:
    if peer is None or run.states is None or peer.states is None:
        return None
    if not is_integer(run.states) or not is_integer(peer.states):
        return None
    mine, theirs = run.states, peer.states
    if any(getattr(mine, n).shape[2] != getattr(theirs, n).shape[2] for n in ("m", "h", "y")):
        return None  # a recording of some of the states
    return schema.Equality(target=peer.target, **asdict(compare_states(run.states, peer.states)))


def rounded(values: np.ndarray) -> list[float]:
    """Return a list of floats rounded to five significant digits, which suffice for a plot."""
    return [float(f"{value:.{_DIGITS}g}") for value in np.asarray(values, dtype=np.float64)]
