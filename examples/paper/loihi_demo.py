"""The authors' demonstration on Loihi: a window of one second held by 600 spiking neurons.

Order 6, 100 neurons a dimension with maximum rates of 100 to 120 Hz, theta 1 s, white noise to 1 Hz
of rms 0.3, synapses of 0.1 s, 50 s at steps of 1 ms; here on Lava's fixed-point LIF neurons, on
their NumPy simulator, and on an ideal analog chip in Brian2. The decoders are fitted to other
noise.

    python examples/paper/loihi_demo.py --out loihi-demo

writes loihi-demo/loihi-demo.json and loihi-demo/loihi-demo.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from converters.loihi import loihi_spike
from converters.spiking import spike
from lmu_deploy.core.legendre import window_decoders
from lmu_deploy.core.metrics import nrmse
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.progress import progress_bar
from lmu_deploy.core.reference import run_reference
from lmu_deploy.tasks.memory import RMS, white_noise
from targets.base import Run, get_target

ORDER, NEURONS, THETA_MS, TAU_MS, MAX_RATES = 6, 100, 1000, 100.0, (100.0, 120.0)
BAND_HZ, NOISE_RMS = 1.0, 0.3
POSITIONS = np.linspace(0.0, 1.0, 51)
SHOWN = (0.0, 0.5, 1.0)
SHOWN_SECONDS = 6


def delay_network() -> LMUNetwork:
    """Return a memory alone, whose answer is its state."""
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(ORDER, THETA_MS), None)
    return LMUNetwork((layer,), Readout(np.eye(ORDER), None), return_sequences=True)


def noise(signals: int, seconds: int, seed: int) -> np.ndarray:
    """Draw white noise at 1 kHz, shape (signals, milliseconds, 1)."""
    drawn = white_noise(signals, 1000 * seconds, BAND_HZ * seconds, seed)
    return (drawn * (NOISE_RMS / RMS))[:, :, None]


def lowered(
    target: str, network: LMUNetwork, neurons: int, maximum_rates: tuple[float, float]
) -> Any:
    """Return the network that a target runs, its decoders fitted to 160 s of other noise."""
    given = noise(40, 4, seed=1)
    options: dict[str, Any] = {
        "neurons_per_state": neurons,
        "presentation_ms": 1.0,
        "tau_ms": TAU_MS,
        "maximum_rates": maximum_rates,
    }
    if target == "brian2":
        return spike(network, given, "generic-analog", mismatch=0.0, **options)
    return loihi_spike(network, given, **options)


def windows(states: np.ndarray) -> np.ndarray:
    """Decode the window from states (steps, order); shape (steps, positions)."""
    return np.asarray(states @ window_decoders(ORDER, POSITIONS).T)


def past(u: np.ndarray) -> np.ndarray:
    """Return the true window of a signal (steps,); shape (steps, positions), zeros before it."""
    padded = np.concatenate([np.zeros(THETA_MS), u])
    steps = np.arange(len(u))[:, None]
    return np.asarray(padded[steps + THETA_MS - np.rint(POSITIONS * THETA_MS).astype(int)])


def judge(
    run: Run, ideal: np.ndarray, u: np.ndarray, neurons: int, seconds: float
) -> dict[str, Any]:
    """Compare a run's states and window with the ideal memory's and with the true past."""
    assert run.states is not None
    m = run.states.real_m()[0]
    settled = slice(THETA_MS, None)
    spikes = int(run.events["layer0/memory"].sum())
    return {
        "target": run.target,
        "state_nrmse": _error(m[settled], ideal[settled]),
        "window_nrmse": _error(windows(m)[settled], windows(ideal)[settled]),
        "window_nrmse_of_past": _error(windows(m)[settled], past(u)[settled]),
        "spikes_per_neuron_per_second": spikes / (ORDER * neurons * len(u) * 1e-3),
        "saturations": dict(run.saturations),
        "seconds": round(seconds, 1),
    }


def _error(found: np.ndarray, true: np.ndarray) -> float:
    return nrmse(found[None], true[None])


def draw(runs: list[Run], ideal: np.ndarray, u: np.ndarray, path: Path) -> None:
    """Plot the input and the decoded window at three delays, a row for each."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "loihi-demo"
    stop = len(u)
    start = max(stop - 1000 * SHOWN_SECONDS, 0)
    t = np.arange(start, stop, 10)
    figure, rows = plt.subplots(
        len(SHOWN), 1, figsize=(7.0, 5.5), sharex=True, layout="constrained"
    )
    for axes, position in zip(rows, SHOWN, strict=True):
        column = int(np.argmin(np.abs(POSITIONS - position)))
        axes.plot(t / 1000, past(u)[t, column], color="black", linewidth=1.0, label="true past")
        axes.plot(t / 1000, windows(ideal)[t, column], "--", color="gray", label="ideal, order 6")
        for run in runs:
            assert run.states is not None
            axes.plot(t / 1000, windows(run.states.real_m()[0])[t, column], label=run.target)
        axes.set(ylabel=f"{position * THETA_MS / 1000:g} s ago")
    rows[0].legend(ncols=3, fontsize="small")
    rows[-1].set(xlabel="time (s)")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Run, print a table, write the figures and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", default="spiking,lava-lif,brian2")
    parser.add_argument("--seconds", type=int, default=50)
    parser.add_argument("--neurons", type=int, default=NEURONS, help="of a dimension")
    parser.add_argument(
        "--max-rates",
        type=float,
        nargs=2,
        default=MAX_RATES,
        metavar=("LOW", "HIGH"),
        help="hertz, between which a neuron's rate at the end of its range is drawn",
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    network, signal = delay_network(), noise(1, options.seconds, seed=0)
    trace = run_reference(network, signal, record=True)
    assert trace.m is not None
    ideal, u = trace.m[0], signal[0, :, 0]
    runs, rows, made = [], [], {}
    for name in options.targets.split(","):
        kind = "analog" if name == "brian2" else "loihi"
        if kind not in made:
            made[kind] = lowered(name, network, options.neurons, tuple(options.max_rates))
        start = time.perf_counter()
        with progress_bar(name) as progress:
            runs.append(get_target(name).run(made[kind], signal, record=True, progress=progress))
        rows.append(judge(runs[-1], ideal, u, options.neurons, time.perf_counter() - start))
        print("{target:9} states {state_nrmse:.4f}  window {window_nrmse:.4f}".format(**rows[-1]))
    integers = [r.states.m for r in runs if r.states is not None and r.states.m.dtype.kind == "i"]
    equal = all(np.array_equal(integers[0], other) for other in integers[1:])
    unavoidable = _error(windows(ideal)[THETA_MS:], past(u)[THETA_MS:])
    print(f"ideal     window {unavoidable:.4f} of the past")
    print(f"{len(integers)} integer targets, states equal at every step: {equal}")
    options.out.mkdir(parents=True, exist_ok=True)
    figures = {
        "maximum_rates": list(options.max_rates),
        "runs": rows,
        "ideal_window_nrmse_of_past": unavoidable,
        "integer_targets": len(integers),
        "equal": equal,
    }
    text = json.dumps(figures, indent=1) + "\n"
    (options.out / "loihi-demo.json").write_text(text, encoding="utf-8")
    draw(runs, ideal, u, options.out / "loihi-demo.svg")
    print(options.out, file=sys.stderr)


if __name__ == "__main__":
    main()
