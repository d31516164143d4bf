"""Time and closed-loop error of calibrations, of this version beside another one.

Each case is calibrated by each version in a process of its own, one after the other. Times are
those of the processor, from the start of Python on, so that other work counts little. The maps are
then judged by this version: the error of the states, relative to the states, on the same chip that
runs freely on new inputs.

    git worktree add ../earlier 3aef5d3
    python benchmarks/calibration_speed.py --other ../earlier

The synapses that a chip needs for the whole map and for one in factors are beside them.

The cases are a network of the size of spoken digits (random encoders; 8 channels of order 50) and
the digits network of the examples, each on one chip of 100 LIF neurons a state.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import results

STEPS, THETA, FEATURES, CHANNELS, ORDER = 62, 50.0, 12, 8, 50
SMOOTHING = 4.0
"""Steps over which the features of the first case change."""
SAMPLES, JUDGED = 40, 8
COLUMNS = [
    ("network", "{}"),
    ("version", "{}"),
    ("processor seconds", ">{:.1f}"),
    ("memory, GB", ">{:.1f}"),
    ("error of the states", ">{:.4f}"),
    ("static map", ">{:.4f}"),
    ("synapses, whole map", ">{:,d}"),
    ("weights, factored map", ">{:,d}"),
]


def features(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth random features of unit variance, shape (samples, STEPS, FEATURES)."""
    lag = np.exp(-1.0 / SMOOTHING)
    x = rng.standard_normal((samples, FEATURES))
    found = []
    for _ in range(STEPS):
        x = lag * x + np.sqrt(1.0 - lag**2) * rng.standard_normal(x.shape)
        found.append(x)
    return np.stack(found, axis=1)


def speech_like() -> Any:
    """Return a network of the size of spoken digits with random encoders; it needs no training."""
    network = _module("network")
    rng = np.random.default_rng(0)
    encoders = rng.standard_normal((FEATURES, CHANNELS)) / np.sqrt(FEATURES)
    memory = network.Memory.legendre(ORDER, THETA, CHANNELS)
    layer = network.LMULayer(encoders, None, None, None, memory, None)
    readout = network.Readout(np.eye(CHANNELS * ORDER), None)
    return network.LMUNetwork((layer,), readout, return_sequences=True)


def _module(name: str) -> Any:
    """Import a module of the representations, which earlier versions have beside the package."""
    import lmu_deploy

    # Not by trying: an installed version may lend its modules to the one in the checkout.
    core = (Path(lmu_deploy.__file__).parent / "core").is_dir()
    return importlib.import_module(f"lmu_deploy.{'core.' if core else ''}{name}")


def load_case(case: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the network of a case, inputs to calibrate on, and inputs to judge with."""
    if case == "speech-like":
        inputs = features(SAMPLES + JUDGED, np.random.default_rng(1))
        return speech_like(), inputs[JUDGED:], inputs[:JUDGED]
    import lmu_deploy
    from lmu_deploy.tasks.digits import TASK

    task = TASK.load()
    path = Path(lmu_deploy.__file__).parents[1] / f"examples/models/{case}.safetensors"
    new = hasattr(lmu_deploy, "load")
    network = lmu_deploy.load(path) if new else _module("representations").load_any(path)
    return network, task.train.inputs[:200], task.test.inputs[:JUDGED]


def calibrate(case: str, method: str, out: Path) -> None:
    """Calibrate a case with the version that is imported, and write what was found."""
    from converters.spiking import spike

    network, inputs, _ = load_case(case)
    options = {"mismatch": 0.2, "calibration_samples": len(inputs), "calibration": method}
    found = spike(network, inputs, units="host", **options)
    used = resource.getrusage(resource.RUSAGE_SELF)
    memory = next(memory for memory in found.memories if memory is not None)
    populations = memory.populations
    np.savez(
        out,
        processor=used.ru_utime + used.ru_stime,
        gigabytes=used.ru_maxrss / 1e6,
        weights=memory.weights,
        scales=memory.scales,
        **{
            n: getattr(populations, n)
            for n in ("encoders", "gains", "biases", "gain_factors", "bias_factors")
        },
    )


def judge(case: str, found: Any) -> float:
    """Return the closed-loop error of a map on new inputs."""
    from dataclasses import replace

    from converters.spiking.build import memory_inputs
    from converters.spiking.closed_loop import loop_errors, scale_memory
    from converters.spiking.neurons import Chip, Fit
    from lmu_deploy.core.graph.transforms import as_layers
    from lmu_deploy.core.spiking.chip import Device, NeuronModel, Populations

    network, _, inputs = load_case(case)
    network = as_layers(network, "benchmark")
    u = next(one for one in memory_inputs(network, inputs) if one is not None)
    memory = next(layer.memory for layer in network.layers if hasattr(layer, "memory"))
    tau_ms, dt_ms, parts = 100.0, 1.0, 50
    scaled = scale_memory(memory, u, parts, float(np.exp(-dt_ms / tau_ms)))
    ratio = scaled.scales / found["scales"]
    targets = scaled.targets * ratio[:, :, None] / ratio[:, None, :]
    trajectory = scaled.trajectory * ratio.astype(np.float32)
    scaled = replace(scaled, scales=found["scales"], targets=targets, trajectory=trajectory)
    fields = ("encoders", "gains", "biases", "gain_factors", "bias_factors")
    populations = Populations(*(found[name] for name in fields))
    device = Device("generic-analog", 0, 0.2, 0.0, 0)
    chip = Chip(populations, NeuronModel("lif", 20.0, 2.0), device, dt_ms, tau_ms, memory.order)
    fit = Fit(found["weights"], 0.0, 0.0)
    return float(loop_errors([chip], [[fit]], scaled, [9], samples=JUDGED)[0, 0])


def synapses(found: Any) -> list[int]:
    """Return the synapses of a chip for the whole map, and the weights of one in factors.

    In factors, a population is decoded once, before A', which is a matrix of the order.
    """
    channels, order, columns = found["weights"].shape
    whole = int(np.count_nonzero(found["weights"])) * found["encoders"].shape[1]
    return [whole, channels * (columns + order**2)]


def measured(root: Path, case: str, method: str, folder: Path) -> Any:
    """Calibrate a case with the version in a checkout."""
    out = folder / "found.npz"
    script = Path(__file__).resolve()
    paths = os.pathsep.join([str(root), str(script.parent)])
    command = [sys.executable, str(script), "--worker", case, "--method", method, str(out)]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": paths})
    with np.load(out) as stored:
        return {name: stored[name] for name in stored.files}


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate every case with both versions, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--method", default="dynamic", help=argparse.SUPPRESS)
    parser.add_argument("--other", type=Path, help="checkout of another version")
    parser.add_argument("--name", default="3aef5d3", help="what the other version is called")
    parser.add_argument("--cases", default="speech-like,digits", help="with commas between")
    results.add_options(parser)
    args = parser.parse_args(arguments)
    if args.worker:
        calibrate(args.worker, args.method, args.out)
        return
    roots = {"this version": results.ROOT}
    if args.other:
        roots = {args.name: args.other.resolve(), **roots}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases.split(","):
            static = judge(case, measured(results.ROOT, case, "static", Path(folder)))
            for version, root in roots.items():
                found = measured(root, case, "dynamic", Path(folder))
                times = [float(found[n]) for n in ("processor", "gigabytes")]
                rows.append([case, version, *times, judge(case, found), static, *synapses(found)])
                print(rows[-1], file=sys.stderr)
    results.publish(COLUMNS, rows, args, seed=0)


if __name__ == "__main__":
    main()
