"""The model of energy and time beside what was measured of a whole network on Loihi.

Renner et al. (2024, Nature Communications 15, 9691, Table 1) give 0.0025 mJ and 0.17 ms for one
MNIST digit on Loihi, inference alone, in a network of 400-400-10 neurons. The authors' program
(README of nBP) has a layer that repeats the input, a hidden and an output layer, all-to-all
synapses between them, and a loop of four gating neurons, so that a digit takes four steps. Each
neuron spikes at most once. Spikes of the input layer are bright pixels of the middle 20 x 20 of a
digit; the brightness from which one spikes is unknown here, and so is the activity of the hidden
layer. The fewest operations are those with spikes above three quarters of full brightness and no
hidden spike, the most those with spikes above zero and a spike of every hidden neuron.

    python benchmarks/published_energy.py --save energy/published
"""

from __future__ import annotations

import argparse

import numpy as np
import results

from lmu_deploy.fidelity.measures.energy import Counts, estimate
from lmu_deploy.hardware.profile import DigitalProfile, cost_tables, load_profile
from lmu_deploy.tasks.digits import read_mnist

SIDE, HIDDEN, CLASSES, GATES, STEPS = 20, 400, 10, 4, 4
ENERGY_UJ, LATENCY_US = 2.5, 170.0
COLUMNS = [
    ("", "{}"),
    ("model, from", "{:.3g}"),
    ("to", "{:.3g}"),
    ("published", "{:.3g}"),
    ("model / published, from", "{:.2f}"),
    ("to ", "{:.2f}"),
]


def active_pixels(images: np.ndarray, above: float) -> float:
    """Return how many pixels of the middle of a digit are brighter than a share, on average.

    Parameters
    ----------
    images : ndarray, shape (digits, 784), uint8
    above : float
        Share of full brightness.
    """
    edge = (28 - SIDE) // 2
    middle = images.reshape(-1, 28, 28)[:, edge : edge + SIDE, edge : edge + SIDE]
    return float((middle > 255 * above).sum(axis=(1, 2)).mean())


def counts(pixels: float, hidden: float) -> Counts:
    """Return the operations of a digit, from the spikes of the input and of the hidden layer."""
    chip = load_profile("loihi1", kind="digital")
    assert isinstance(chip, DigitalProfile)
    inputs = SIDE * SIDE
    cores = int(np.ceil(inputs * HIDDEN / chip.synaptic_bytes_per_core.value))
    neurons = inputs + HIDDEN + CLASSES + GATES
    relayed = pixels  # each input spike is repeated by one neuron of the input layer
    gated = inputs + HIDDEN + CLASSES + GATES  # synapses of the gating neurons, once each
    return Counts(
        synops=relayed + pixels * HIDDEN + hidden * CLASSES + gated,
        messages=relayed + pixels + hidden + GATES,
        updates=float(neurons * STEPS),
        steps=1,
        chip_steps=STEPS,
        deliveries=relayed + pixels * cores + hidden + GATES,
    )


def bounds() -> dict[str, tuple[float, float]]:
    """Return the range of each figure: synaptic operations, energy (J), time (s)."""
    *_, images, _ = read_mnist()
    found = [counts(active_pixels(images, 0.75), 0.0), counts(active_pixels(images, 0.0), HIDDEN)]
    costs = [estimate(each, {"loihi": cost_tables()["loihi"]}) for each in found]
    energy, latency = ([getattr(c, name) for c in costs] for name in ("energy", "latency"))
    return {
        "synops": (found[0].synops, found[1].synops),
        "energy": (energy[0][0], energy[1][1]),
        "latency": (latency[0][0], latency[1][1]),
    }


def main() -> None:
    """Print the table, and save it if it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results.add_options(parser)
    arguments, found = parser.parse_args(), bounds()
    rows: list[list[results.Cell]] = [
        [
            "synaptic operations of a digit",
            *(f"{value:,.0f}" for value in found["synops"]),
            None,
            None,
            None,
        ]
    ]
    for name, key, unit, published in (
        ("energy of a digit, µJ", "energy", 1e6, ENERGY_UJ),
        ("time of a digit, µs", "latency", 1e6, LATENCY_US),
    ):
        low, high = (unit * value for value in found[key])
        rows.append([name, low, high, published, low / published, high / published])
    results.publish(COLUMNS, rows, arguments)


if __name__ == "__main__":
    main()
