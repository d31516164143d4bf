"""Cases on what a run says of itself, its states and its events."""

from __future__ import annotations

import json

import numpy as np

from targets.base import Run, States, Target
from targets.conformance.answers import EXAMPLES
from targets.conformance.bench import (
    SEED,
    ConformanceError,
    MakeNetwork,
    deviation,
    made,
    recorded,
    reference,
    require,
    tolerance,
)
from targets.conformance.networks import SAMPLES, STEPS, example


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
