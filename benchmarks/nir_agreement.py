"""NIR graphs on Norse, compared with the float reference and our spiking neurons.

Float memories under white noise: every state of every step against the reference in float64, where
Norse computes in float32; and the memory of `examples/models/digits` on the test images, from whose
states the host computes the rest. Spiking memories under white noise: spike for spike and state for
state against the neurons that calibrated them, from membranes at rest, in float64; and both against
the ideal memory.

NIRTorch connects the graphs and Norse's importer creates the modules, with one exception: Norse
1.1.0 has no module for NIR's leaky integrator (LI), so `benchmarks/nir_norse.py` uses Norse's own
cell of the same equation, `LIBoxCell`. Norse was chosen because, according to their sources,
snnTorch 1.0.0 and Spyx 1.0.0 refuse an LI without spikes, Rockpool 3.1.0 truncates its time
constant to whole seconds, and Sinabs 3.1.3 takes it in steps and its input unscaled.

Norse has a separate environment (it declares torchvision but does not need it):

    python3 -m venv NORSE
    NORSE/bin/pip install torch==2.13.0 numpy nir==1.0.8 nirtorch==2.6 h5py
    NORSE/bin/pip install --no-deps norse==1.1.0
    python benchmarks/nir_agreement.py NORSE/bin/python [--save nir]

Exit code 1 when a figure exceeds its tolerance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import results

from converters.nir import to_nir, write_nir
from converters.spiking import spike
from converters.spiking.closed_loop import divide_step
from converters.spiking.neurons import LeakyIntegrateAndFire
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.loading import load_float
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.core.spiking.network import SpikingNetwork
from lmu_deploy.tasks.base import get_task
from targets.host import HostLayer

FLOAT_TOLERANCE = 1e-5
"""Largest difference of a state, relative to the largest state: float32 over 1,000 steps."""
SPIKING_TOLERANCE = 1e-3
"""Root mean square difference of the decoded states, relative to that of the ideal states."""
FLOAT_CASES = ((6, 100.0), (16, 100.0), (32, 300.0), (64, 784.0), (256, 784.0))
SPIKING_CASES = ((3, 60), (6, 100))
STEPS = 1000
PRESENTATIONS = 60
MEMORY = [
    ("order", ">{:d}"),
    ("theta (steps)", ">{:g}"),
    ("largest difference / largest state", ">{:.1e}"),
]
SPIKES = [
    ("order", ">{:d}"),
    ("neurons a state", ">{:d}"),
    ("spikes", ">{:,d}"),
    ("steps", ">{:,d}"),
    ("first step with another spike", ">{:,}"),
    ("Norse - ours", ">{:.1e}"),
    ("ours - ideal", ">{:.3f}"),
    ("Norse - ideal", ">{:.3f}"),
]
WORKER = Path(__file__).with_name("nir_norse.py")
MODEL = Path(__file__).parents[1] / "examples" / "models" / "digits.safetensors"


@dataclass(frozen=True)
class Norse:
    """The interpreter that has Norse, and the folder where files are exchanged."""

    python: Path
    folder: Path

    def run(self, network: LMUNetwork | SpikingNetwork, inputs: np.ndarray, dt: float) -> dict:
        """Export, run, and read what each Output and LIF population gave."""
        graph, x, y = (self.folder / name for name in ("graph.nir", "x.npy", "y.npz"))
        write_nir(to_nir(network), graph)
        np.save(x, inputs)
        command = [self.python, WORKER, graph, x, y, repr(dt)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        return {**np.load(y), "versions": json.loads(done.stdout.splitlines()[-1])}


def white_noise(steps: int, band: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of rms 0.3 up to `band` cycles a step, shape (steps,)."""
    frequencies = np.fft.rfftfreq(steps)
    spectrum = rng.standard_normal((2, len(frequencies)))
    spectrum[:, (frequencies > band) | (frequencies == 0.0)] = 0.0
    signal = np.fft.irfft(spectrum[0] + 1j * spectrum[1], steps)
    return np.asarray(0.3 * signal / signal.std())


def memory_network(order: int, theta: float) -> LMUNetwork:
    """Return a memory whose readout is its states."""
    layer = LMULayer(np.ones((1, 1)), None, None, None, Memory.legendre(order, theta), None)
    return LMUNetwork((layer,), Readout(np.eye(order), None), return_sequences=True)


def float_case(norse: Norse, order: int, theta: float) -> tuple[float, dict]:
    """Return the largest difference of Norse's states, relative to the largest state."""
    network = memory_network(order, theta)
    u = white_noise(STEPS, 0.05, np.random.default_rng(order))[:, None]
    found = norse.run(network, u, 1e-3)
    expected = run_reference(network, u[None]).outputs[0]
    error = np.abs(found["output"] - expected).max() / np.abs(expected).max()
    return float(error), found["versions"]


def digits_case(norse: Norse) -> tuple[float, int, int]:
    """Return the difference of the states, and how many of how many images have the same class."""
    network = as_layers(load_float(MODEL, "nir_agreement"), "nir_agreement")
    layer = network.layers[0]
    assert isinstance(layer, LMULayer)
    inputs = get_task("digits").load().test.inputs
    trace = run_reference(network, inputs, record=True)
    assert trace.m is not None
    found = norse.run(network, inputs.swapaxes(0, 1), 1e-3)["layer0_output"].swapaxes(0, 1)
    host = HostLayer(layer, inputs.astype(np.float64))
    for step in range(inputs.shape[1]):
        host.observe(step, found[:, step])
    logits = host.output[:, -1] @ network.readout.kernel
    if network.readout.bias is not None:
        logits = logits + network.readout.bias
    same = int((logits.argmax(axis=1) == trace.outputs.argmax(axis=1)).sum())
    error = np.abs(found - trace.m).max() / np.abs(trace.m).max()
    return float(error), same, len(inputs)


def simulator(network: SpikingNetwork, u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return states, ideal states and spikes at each step, by our own neurons."""
    memory = network.memories[0]
    assert memory is not None
    neurons = LeakyIntegrateAndFire(
        memory.populations,
        network.neuron,
        network.device,
        network.dt_ms,
        1,
        np.random.default_rng(0),
        np.float64,
    )
    neurons.v[:] = 0.0
    a_bar, b_bar = divide_step(network.host.layers[0].memory, network.steps_per_presentation)
    x, ideal, a = np.zeros(memory.order), np.zeros(memory.order), network.decay
    rows = []
    for value in u:
        spikes = neurons.step(x[None]).reshape(-1)
        drive = memory.weights[0] @ spikes / (network.dt_ms * 1e-3)
        x = a * x + (1.0 - a) * (drive + memory.scaled_input[0] * value)
        ideal = a_bar @ ideal + b_bar * value
        rows.append((x * memory.scales[0], ideal, spikes))
    states, ideals, spikes = (np.array(column) for column in zip(*rows, strict=True))
    return states, ideals, spikes


def spiking_case(norse: Norse, order: int, neurons: int) -> dict:
    """Compare one spiking memory: 0.5 s behind synapses of 0.1 s, steps of 2 ms."""
    network = memory_network(order, 10.0)
    rng = np.random.default_rng(order)
    learned = np.array([white_noise(PRESENTATIONS, 0.05, rng) for _ in range(40)])[:, :, None]
    spiking = spike(network, learned, dt_ms=2.0, neurons_per_state=neurons)
    held = np.repeat(white_noise(PRESENTATIONS, 0.05, rng), spiking.steps_per_presentation)
    states, ideal, spikes = simulator(spiking, held)
    # In the graph the neurons follow the synapses; their first step, from rest, comes before u.
    found = norse.run(spiking, np.concatenate([[0.0], held])[:, None], spiking.dt_ms * 1e-3)
    theirs, their_spikes = found["layer0_output"][1:], found["layer0_neurons"][:-1]
    different = np.flatnonzero((their_spikes != spikes).any(axis=1))

    def error(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(ideal**2)))

    return {
        "steps": len(held),
        "spikes": int(spikes.sum()),
        "first": int(different[0]) if len(different) else None,
        "between": error(theirs, states),
        "ours": error(states, ideal),
        "norse": error(theirs, ideal),
    }


def publish(name: str, columns: results.Columns, rows: list, page: str | None) -> None:
    """Print one of the two tables, and save it if a page is given."""
    save = f"{page}/{name}" if page else None
    results.publish(columns, rows, argparse.Namespace(save=save, append=False))


def compare(norse: Norse, page: str | None) -> bool:
    """Measure all and print the tables; return whether all lies within the tolerances."""
    rows, good = [], True
    for order, theta in FLOAT_CASES:
        figure, versions = float_case(norse, order, theta)
        good &= figure <= FLOAT_TOLERANCE
        rows.append([order, theta, figure])
    publish("memory", MEMORY, rows, page)
    figure, same, images = digits_case(norse)
    good &= figure <= FLOAT_TOLERANCE and same == images
    print(
        f"\nThe digits network: states differ by {figure:.1e}, and {same} of {images} test images "
        "get the reference's class.\n"
    )
    rows = []
    for order, neurons in SPIKING_CASES:
        case = spiking_case(norse, order, neurons)
        good &= case["between"] <= SPIKING_TOLERANCE
        first = "none" if case["first"] is None else case["first"]
        figures = [case[key] for key in ("between", "ours", "norse")]
        rows.append([order, neurons, case["spikes"], case["steps"], first, *figures])
    publish("spikes", SPIKES, rows, page)
    print(
        f"\nTolerances: {FLOAT_TOLERANCE:g} for float memories, and all classes equal; "
        f"{SPIKING_TOLERANCE:g} for the states of spiking ones (rms, relative to the ideal's). "
        f"{'All hold' if good else 'NOT all hold'}.\n"
    )
    print("Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    return good


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", type=Path, help="interpreter that has Norse")
    parser.add_argument("--save", metavar="PAGE", help="save both tables for this page")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = compare(Norse(args.python.absolute(), Path(folder)), args.save)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
