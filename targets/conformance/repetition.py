"""Cases on running again: seeds, batches, inputs, progress."""

from __future__ import annotations

import numpy as np

from targets.base import Target
from targets.conformance.bench import SEED, MakeNetwork, made, observed, recorded, require
from targets.conformance.networks import SAMPLES, example


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
    """Check that a sample answers and sends alone what it does among others."""
    network, inputs = made(make_network, "stacked"), example("stacked").inputs
    together = recorded(target, make_network, "stacked")
    for i in (0, SAMPLES - 1):
        alone = target.run(network, inputs[i : i + 1], seed=SEED)
        same = np.allclose(alone.outputs, together.outputs[i : i + 1], rtol=1e-5, atol=1e-6)
        require(same, f"sample {i} answers otherwise alone")
        for population, counts in together.events.items():
            same = np.array_equal(counts[i : i + 1], alone.events[population])
            require(same, f"sample {i} sends other events of {population} alone")


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
