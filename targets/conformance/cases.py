"""Conformance cases: outputs, states and events, invalid arguments, and repeated runs."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.spiking.loihi import LoihiNetwork
from lmu_deploy.core.spiking.network import SpikingNetwork
from targets.base import Run, States, Target, get_target
from targets.conformance.fixtures import (
    SAMPLES,
    SEED,
    STEPS,
    ConformanceError,
    MakeNetwork,
    deviation,
    example,
    is_spiking,
    made,
    observed,
    recorded,
    reference,
    require,
    tolerance,
)

EXAMPLES = ("recurrent", "stacked", "memory")
SIMULATORS = {IntegerNetwork: "integer", LoihiNetwork: "spiking"}
"""The bit-exact simulator of each representation that has one."""


def case_answers_are_real_numbers_of_the_right_shape(
    target: Target, make_network: MakeNetwork
) -> None:
    """Check that there is a finite output for each sample, or each step of a sequence network."""
    for name in EXAMPLES:
        outputs = recorded(target, make_network, name).outputs
        expected = reference(name).outputs.shape
        require(outputs.shape == expected, f"{name}: shape {outputs.shape}, expected {expected}")
        require(outputs.dtype.kind == "f", f"{name}: outputs have type {outputs.dtype}")
        require(np.isfinite(outputs).all(), f"{name}: outputs are not all finite")


def case_answers_agree_with_the_reference(target: Target, make_network: MakeNetwork) -> None:
    """Check that outputs lie within the target's tolerance of the float reference."""
    for name in EXAMPLES:
        outputs = recorded(target, make_network, name).outputs
        off = deviation(outputs, reference(name).outputs)
        most = tolerance(target, made(make_network, name))
        require(off <= most, f"{name}: off by {off:.3g} of the answers' size; {most:g} is allowed")


def case_silence_is_answered_with_silence(target: Target, make_network: MakeNetwork) -> None:
    """Check that zero inputs to a network without biases move no state and send no event.

    The outputs of spiking neurons, which fire at rest, may lie within the tolerance.
    """
    network = made(make_network, "recurrent")
    inputs = np.zeros_like(example("recurrent").inputs)
    run = target.run(network, inputs, record=True, seed=SEED)
    if is_spiking(network):
        size = np.sqrt(np.mean(np.square(reference("recurrent").outputs)))
        off = float(np.sqrt(np.mean(np.square(run.outputs))) / size)
        most = tolerance(target, network)
        require(off <= most, f"zero input is answered with {off:.3g} of usual answers")
        return
    require(not run.outputs.any(), "zero input is not answered with zero")
    require(run.states is not None, "no states, though recording was asked for")
    if run.states is not None:
        for kind in ("m", "h", "y"):
            require(not getattr(run.states, kind).any(), f"zero input moves {kind}")
    for population, counts in run.events.items():
        require(not counts.any(), f"{population} sends events at zero input")


def case_one_step_is_the_first_of_many(target: Target, make_network: MakeNetwork) -> None:
    """Check that a single step has the outputs of the first step of a longer sequence.

    A single sample is run where samples are independent; noise is drawn for a whole batch.
    """
    network = made(make_network, "stacked")
    samples = slice(None) if isinstance(network, SpikingNetwork) else slice(1)
    one = target.run(network, example("stacked").inputs[samples, :1], seed=SEED)
    many = recorded(target, make_network, "stacked").outputs[samples, :1]
    require(one.outputs.shape == many.shape, f"shape {one.outputs.shape}, expected {many.shape}")
    if is_spiking(network):
        size = np.sqrt(np.mean(np.square(reference("stacked").outputs)))
        off = float(np.sqrt(np.mean(np.square(one.outputs - many))) / size)
        most = tolerance(target, network)
        require(off <= most, f"one step is off by {off:.3g} of usual answers")
        return
    require(np.allclose(one.outputs, many, rtol=1e-6, atol=1e-6), "one step gives another answer")


def case_integers_equal_the_simulator(target: Target, make_network: MakeNetwork) -> None:
    """Check that all states, events and saturations equal those of the bit-exact simulator."""
    simulator = get_target(SIMULATORS[type(made(make_network, EXAMPLES[0]))])
    for name in EXAMPLES:
        ours = recorded(target, make_network, name)
        theirs = recorded(simulator, make_network, name)
        require(np.array_equal(ours.outputs, theirs.outputs), f"{name}: outputs differ")
        for kind in ("m", "h", "y"):
            value, right = getattr(ours.states, kind), getattr(theirs.states, kind)
            same_type = value.dtype.kind == right.dtype.kind
            require(same_type, f"{name}: {kind} has type {value.dtype}, not {right.dtype}")
            require(np.array_equal(value, right), f"{name}: {kind} differs from the simulator's")
        require(set(ours.events) == set(theirs.events), f"{name}: populations differ")
        for population, counts in ours.events.items():
            same = np.array_equal(counts, theirs.events[population])
            require(same, f"{name}: events of {population} differ")
        require(ours.synops == theirs.synops, f"{name}: {ours.synops} synops, not {theirs.synops}")
        require(_sent(ours.saturations) == _sent(theirs.saturations), f"{name}: saturations differ")


def _sent(saturations: object) -> dict[str, int]:
    """Return the places with saturations; places without may be listed or not."""
    return {place: count for place, count in dict(saturations).items() if count}  # type: ignore[call-overload]


def case_the_run_says_what_it_was(target: Target, make_network: MakeNetwork) -> None:
    """Check name, steps, seed and time, and that settings can be written as JSON."""
    run = recorded(target, make_network, "recurrent")
    require(run.target == target.name, f"the run says target {run.target!r}")
    require(run.steps == STEPS, f"the run says {run.steps} steps, and had {STEPS}")
    require(run.chip_steps >= 1, f"the run says {run.chip_steps} chip steps")
    require(run.seed == SEED, f"the run says seed {run.seed}, and was given {SEED}")
    require(run.wall_seconds >= 0.0, f"the run says {run.wall_seconds} seconds")
    require(all(isinstance(note, str) for note in run.notes), "a note is no text")
    try:
        json.dumps(dict(run.settings), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConformanceError(f"settings cannot be written as JSON: {error}") from error


def case_states_are_recorded_at_every_step(target: Target, make_network: MakeNetwork) -> None:
    """Check that states have the reference's shapes and a scale each, and that y is the answer."""
    for name in EXAMPLES:
        run, trace = recorded(target, make_network, name), reference(name)
        states = _states(run)
        for kind in ("m", "h", "y"):
            have, want = getattr(states, kind).shape, getattr(trace, kind).shape
            require(have == want, f"{name}: {kind} has shape {have}, expected {want}")
        for kind in ("m", "h"):
            have, want = getattr(states, f"{kind}_scale").shape, getattr(trace, kind).shape[2:]
            require(have == want, f"{name}: {kind}_scale has shape {have}, expected {want}")
        y = states.y * states.y_scale
        answers = y if example(name).network.return_sequences else y[:, -1]
        same = np.allclose(answers, run.outputs, rtol=1e-6, atol=1e-6)
        require(same, f"{name}: y is not what was answered")


def case_states_agree_with_the_reference(target: Target, make_network: MakeNetwork) -> None:
    """Check that states times their scales lie within the target's tolerance of the reference."""
    for name in EXAMPLES:
        states, trace = _states(recorded(target, make_network, name)), reference(name)
        most = tolerance(target, made(make_network, name))
        for kind in ("m", "h"):
            expected = getattr(trace, kind)
            if expected.size:
                real = getattr(states, kind) * getattr(states, f"{kind}_scale")
                off = deviation(real, expected)
                require(off <= most, f"{name}: {kind} is off by {off:.3g}; {most:g} is allowed")


def case_nothing_is_recorded_unasked(target: Target, make_network: MakeNetwork) -> None:
    """Check that without recording there are no states, and the same answers."""
    network = made(make_network, "recurrent")
    run = target.run(network, example("recurrent").inputs, seed=SEED)
    require(run.states is None, "states were recorded without being asked for")
    same = np.allclose(
        run.outputs, recorded(target, make_network, "recurrent").outputs, rtol=1e-6, atol=1e-6
    )
    require(same, "recording changes the answers")


def case_events_add_up(target: Target, make_network: MakeNetwork) -> None:
    """Check the counts' shape and type, and that they fit neurons, rasters and synops."""
    for name in EXAMPLES:
        run = recorded(target, make_network, name)
        total = 0
        for population, counts in run.events.items():
            place = f"{name}: events of {population}"
            require(counts.shape == (SAMPLES, STEPS), f"{place} have shape {counts.shape}")
            require(counts.dtype == np.int64, f"{place} have type {counts.dtype}")
            require(population in run.neurons, f"{place} have no number of neurons")
            most = run.neurons[population] * run.chip_steps
            require((counts >= 0).all(), f"{place} are below zero")
            require((counts.sum(axis=1) <= most).all(), f"{place} exceed {most} a sample")
            total += int(counts.sum())
        for population, raster in run.rasters.items():
            shape = (run.chip_steps, run.neurons[population])
            place = f"{name}: raster of {population}"
            require(raster.shape == shape, f"{place} has shape {raster.shape}, expected {shape}")
            shown, counted = int(raster.sum()), int(run.events[population][0].sum())
            require(shown == counted, f"{place} shows {shown} events, and {counted} were counted")
        require(run.synops >= 0, f"{name}: {run.synops} synops")
        require((run.synops > 0) == (total > 0), f"{name}: {total} events, {run.synops} synops")
        require(all(v >= 0 for v in run.saturations.values()), f"{name}: saturations below zero")


def _states(run: Run) -> States:
    if run.states is None:
        raise ConformanceError("no states, though recording was asked for")
    return run.states


def case_wrong_inputs_are_refused(target: Target, make_network: MakeNetwork) -> None:
    """Check that NaN, infinity, other shapes and types, no samples and no steps are refused."""
    network, inputs = made(make_network, "recurrent"), example("recurrent").inputs
    wrong = {
        "NaN": np.where(inputs == inputs[0, 0, 0], np.nan, inputs),
        "infinity": np.where(inputs == inputs[0, 0, 0], np.inf, inputs),
        "a feature too many": np.concatenate([inputs, inputs[..., :1]], axis=2),
        "a feature too few": inputs[..., :1],
        "a single sample without its axis": inputs[0],
        "no samples": inputs[:0],
        "no steps": inputs[:, :0],
        "texts": np.full(inputs.shape, "x"),
    }
    for what, values in wrong.items():
        _refused(target, network, values, what)


def case_other_representations_are_refused(target: Target, make_network: MakeNetwork) -> None:
    """Check that what is no network, or one of another kind, is refused by name."""
    inputs = example("recurrent").inputs
    for network in ("a text", None, example("recurrent").network):
        if not isinstance(network, target.accepts):
            error = _refused(target, network, inputs, f"a {type(network).__name__}")
            require(target.name in str(error), f"the error does not name the target: {error}")


def case_unsupported_networks_are_refused_with_every_reason(
    target: Target, make_network: MakeNetwork
) -> None:
    """Check that a run calls `unsupported` first, and that its error gives every reason."""
    network, inputs = made(make_network, "recurrent"), example("recurrent").inputs
    reasons = target.unsupported(network)
    require(reasons == [], f"an example network is unsupported: {reasons}")
    refusing: Any = copy.copy(target)
    refusing.unsupported = lambda network: ["its first fault", "its second fault"]
    error = _refused(refusing, network, inputs, "an unsupported network")
    for reason in ("its first fault", "its second fault"):
        require(reason in str(error), f"the error leaves out a reason: {error}")


def _refused(target: Target, network: Any, inputs: np.ndarray, what: str) -> InputError:
    try:
        target.run(network, inputs, seed=SEED)
    except InputError as error:
        text = str(error)
        require("\n" not in text and text.endswith("."), f"{what}: no plain sentence: {text!r}")
        return error
    except Exception as error:
        raise ConformanceError(f"{what} ends in {type(error).__name__}: {error}") from error
    raise ConformanceError(f"{what} is not refused")


def case_the_same_seed_gives_the_same_run(target: Target, make_network: MakeNetwork) -> None:
    """Check that a second run with the same seed is equal in every bit."""
    network, inputs = made(make_network, "recurrent"), example("recurrent").inputs
    first = recorded(target, make_network, "recurrent")
    second = target.run(network, inputs, record=True, seed=SEED)
    require(np.array_equal(first.outputs, second.outputs), "outputs differ between two runs")
    for kind in ("m", "h", "y"):
        same = np.array_equal(getattr(first.states, kind), getattr(second.states, kind))
        require(same, f"{kind} differs between two runs")
    require(set(first.events) == set(second.events), "populations differ between two runs")
    for population, counts in first.events.items():
        same = np.array_equal(counts, second.events[population])
        require(same, f"events of {population} differ between two runs")
    require(first.synops == second.synops, "synops differ between two runs")


def case_samples_do_not_meet(target: Target, make_network: MakeNetwork) -> None:
    """Check that a sample answers and sends the same whichever samples are run with it.

    One run has only the last sample and the first, in this order, so that neither has the
    neighbors that it has in the run of all samples.
    """
    network, inputs = made(make_network, "stacked"), example("stacked").inputs
    together = recorded(target, make_network, "stacked")
    chosen = [SAMPLES - 1, 0]
    apart = target.run(network, inputs[chosen], seed=SEED)
    for place, i in enumerate(chosen):
        same = np.allclose(apart.outputs[place], together.outputs[i], rtol=1e-5, atol=1e-6)
        require(same, f"sample {i} answers otherwise among other samples")
        for population, counts in together.events.items():
            same = np.array_equal(counts[i], apart.events[population][place])
            require(same, f"sample {i} sends other events of {population} among other samples")


def case_inputs_are_left_alone(target: Target, make_network: MakeNetwork) -> None:
    """Check that a run does not change its inputs."""
    given = observed(target, make_network, "recurrent").given
    require(np.array_equal(given, example("recurrent").inputs), "the inputs were changed")


def case_progress_reaches_its_end(target: Target, make_network: MakeNetwork) -> None:
    """Check that progress never goes back, keeps one total, and ends at it."""
    calls = observed(target, make_network, "recurrent").progress
    require(calls, "progress was never called")
    done, totals = [call[0] for call in calls], {call[1] for call in calls}
    require(len(totals) == 1 and min(totals) > 0, f"progress has totals {sorted(totals)}")
    require(done == sorted(done), f"progress goes back: {done}")
    require(done[-1] == min(totals), f"progress ends at {done[-1]} of {min(totals)}")
