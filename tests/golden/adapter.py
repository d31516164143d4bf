"""All that the golden test asks of the project: the one file to edit when names or modules move.

Whatever comes out of here is plain: NumPy arrays, numbers, bytes in files, and networks that only
this file looks into. Nothing else under ``tests/golden`` imports the project.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import lmu_deploy
from converters.importers import import_file
from converters.keras_lmu.matrices import keras_matrices
from converters.loihi import loihi_spike
from converters.quantize import quantize as _quantize
from converters.quantize.sparsity import with_fraction
from converters.spiking import spike as _spike
from converters.spiking.recipe import keep_calibration
from lmu_deploy.core.graph.network import Network as Graph
from lmu_deploy.core.graph.transforms import as_layers
from lmu_deploy.core.integer.layered import float_layers, layer_views
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.parts import Place
from lmu_deploy.core.legendre import discretize
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.core.reference import run_reference
from lmu_deploy.fidelity.attribution import attribute
from lmu_deploy.fidelity.attribution.spiking import attribute_spiking
from lmu_deploy.tasks.base import Split, Task, TaskData, get_task
from targets.base import get_target
from targets.integer.run import step as _stream_step

Arrays = dict[str, Any]
Network = Any

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "examples" / "models"
FIXTURES = ROOT / "tests" / "fixtures" / "keras_lmu"

REALIZATIONS = {
    "dense": "dense-incremental",
    "schur": "schur",
    "hessenberg": "hessenberg",
    "fir": "fir",
    "sign-taylor": "sign-taylor",
    "auto": "auto",
}
"""What the project calls each realization; the keys are the golden test's own names."""


# Networks


def load(name: str) -> Network:
    """Load one of the example networks."""
    return _layers(lmu_deploy.load(MODELS / f"{name}.safetensors"))


def _layers(network: Any) -> Network:
    """Return a float network as the layers whose arrays the golden file has; others as they are."""
    return as_layers(network, "golden") if isinstance(network, Graph) else network


def legendre(order: int, theta: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the discrete matrices of a memory."""
    return discretize(order, theta, method)


def lmu_layer(
    order: int,
    theta: float,
    channels: int,
    method: str,
    encoders: tuple[np.ndarray, np.ndarray | None, np.ndarray | None],
    memory_bias: np.ndarray | None,
    hidden: tuple[Any, ...] | None,
) -> Any:
    """Make an LMU layer.

    Parameters
    ----------
    order, theta, channels, method
        Of its memory.
    encoders : tuple of arrays
        Of the input, the hidden units and the memory; None for a path that is absent.
    memory_bias : ndarray or None
    hidden : tuple or None
        Kernels of the memory, the input and the units themselves, the bias, and the activation.
    """
    memory = Memory.legendre(order, theta, channels, method)
    return LMULayer(*encoders, memory_bias, memory, None if hidden is None else Hidden(*hidden))


def lstm_layer(kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray) -> Any:
    """Make an LSTM layer."""
    return LSTMLayer(kernel, recurrent_kernel, bias)


def float_network(
    layers: tuple[Any, ...], kernel: np.ndarray, bias: np.ndarray | None, every_step: bool
) -> Network:
    """Make a float network; it answers at every step, or after the last one."""
    return LMUNetwork(layers, Readout(kernel, bias), every_step)


def arrays_in(value: Any) -> tuple[list[np.ndarray], list[int], list[float]]:
    """Return all arrays, integers and real numbers of a representation, without their names."""
    arrays: list[np.ndarray] = []
    integers: list[int] = []
    reals: list[float] = []

    def walk(node: Any) -> None:
        if isinstance(node, np.ndarray):
            arrays.append(node)
        elif dataclasses.is_dataclass(node) and not isinstance(node, type):
            for field in dataclasses.fields(node):
                walk(getattr(node, field.name))
        elif isinstance(node, Mapping):
            for each in node.values():
                walk(each)
        elif isinstance(node, tuple | list):
            for each in node:
                walk(each)
        elif isinstance(node, int | np.integer) and not isinstance(node, bool):
            integers.append(int(node))
        elif isinstance(node, float | np.floating):
            reals.append(float(node))

    walk(_layered(value) if isinstance(value, IntegerNetwork) else value)
    return arrays, integers, reals


def _layered(network: IntegerNetwork) -> list[Any]:
    """Return what an integer network of layers consists of, without what a graph adds to it.

    What is no part of a layer, such as the units of an LSTM, counts with all that it has.
    """
    source = as_layers(network.source, "golden")
    names = list(float_layers(network.source))
    layers = layer_views(network, names)
    output = network[network.output]
    (last,) = network.entering(network.output)
    end = [last.connection, output.bias, output.message]
    known = [network.input.place, output.place]
    known += [Place(name, part) for name in names for part in ("memory", "hidden")]
    others = [p for p in network.populations if p.place not in known]
    entering = [edge for p in others for edge in network.entering(p.entrance)]
    return [network.input.message, layers, end, source, others, entering, network.readings]


# Data


def task_parts(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return inputs and right answers of a task's three parts: training, validation, test."""
    data = get_task(name).load()
    return [part.batch(slice(None)) for part in (data.train, data.validation, data.test)]


def first_samples(name: str, part: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first samples of one part of a task, and nothing of the others."""
    data = get_task(name).load()
    return (data.train, data.validation, data.test)[part].batch(slice(samples))


# Conversions


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(options)
    if "realization" in found:
        found["realization"] = REALIZATIONS[found.pop("realization")]
    return found


def quantize(
    network: Network, inputs: np.ndarray, fraction: float | None = None, **options: Any
) -> Network:
    """Make integers of a float network.

    Parameters
    ----------
    network : float network
    inputs : ndarray
        To calibrate on.
    fraction : float, optional
        Share of the range of messages from which on changes are sent (sigma-delta).
    **options
        Of the project's own converter; `realization` by a key of `REALIZATIONS`.
    """
    integer = _quantize(network, inputs, **_options(options))
    return integer if fraction is None else with_fraction(integer, fraction)


def quantize_for_task(network: Network, **options: Any) -> Network:
    """Make integers of a float network with the data of its task, as the command does."""
    return lmu_deploy.quantize(network, **_options(options))


def spike(network: Network, inputs: np.ndarray, **options: Any) -> Network:
    """Put a float network on spiking neurons of an analog chip."""
    return _spike(network, inputs, **options)


def calibration_map(network: Network) -> Any:
    """Return what was measured on the chip of a spiking network, as a file stores it."""
    return keep_calibration(network)


def spike_loihi(network: Network, inputs: np.ndarray, **options: Any) -> Network:
    """Put a float network on LIF neurons in fixed point."""
    return loihi_spike(network, inputs, **options)


# Runs


def run(target: str, network: Network, inputs: np.ndarray, seed: int = 7, **setup: Any) -> Arrays:
    """Run a network on a target and give all that can be counted or recorded.

    Parameters
    ----------
    target : str
        As it is registered.
    network : what the target runs
    inputs : ndarray
    seed : int
    **setup
        Of the target itself, such as the engine of target integer.

    Returns
    -------
    dict of str to ndarray or list of ndarray
        Lists are of places and populations, whose names and order mean nothing here.
    """
    runner = get_target(target)
    if setup:
        runner = type(runner)(**setup)
    given = Graph.from_layers(network) if isinstance(network, LMUNetwork) else network
    with _plain_loop():
        done = runner.run(given, inputs, record=True, seed=seed)
    states = done.states
    found: Arrays = {
        "outputs": done.outputs,
        "m": states.m,
        "h": states.h,
        "y": _in_recorded_type(target, states.y),
        "scales": [states.m_scale, states.h_scale, np.asarray(states.y_scale)],
        "real m": states.real_m(),
        "events": [np.asarray(each) for each in done.events.values()],
        "counts": np.array([done.synops, done.steps, done.chip_steps], np.int64),
        "neurons": np.array(sorted(done.neurons.values()), np.int64),
        "saturations": np.array(sorted(n for n in done.saturations.values() if n), np.int64),
        "carried": np.array(sorted(done.carried.values()), np.int64),
        "rasters": [np.asarray(each) for each in done.rasters.values() if np.size(each)],
    }
    return found


def _in_recorded_type(target: str, y: np.ndarray) -> np.ndarray:
    """Return integer outputs in the width that the target once gave them; a hash includes it."""
    if y.dtype.kind != "i":
        return y
    recorded = y.astype(np.int64 if target == "integer" else np.int32)
    assert np.array_equal(recorded, y)
    return recorded


@contextmanager
def _plain_loop() -> Iterator[None]:
    """Let the reference run the plain loop, whose last bits the golden file has.

    The fast forms are compared with it elsewhere, to 1e-9.
    """

    def plain(network: Any, *given: Any, lengths: None = None, **options: Any) -> Any:
        layers = as_layers(network, "golden")
        trace = run_reference(layers, *given, **options)
        if trace.m is None:
            return trace
        names = list(float_layers(network))
        sizes = [layer.memory.size for layer in layers.layers if isinstance(layer, LMULayer)]
        parts = np.split(trace.m, np.cumsum(sizes)[:-1], axis=2)
        return dataclasses.replace(trace, memory=dict(zip(names, parts, strict=True)))

    measure = "lmu_deploy.fidelity.attribution.measure.run_reference"
    with patch("targets.reference.run_reference", plain), patch(measure, plain):
        yield


def stream(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Feed an integer network step by step; give what it answers at every step."""
    answers, state = [], None
    for t in range(inputs.shape[1]):
        y, state = _stream_step(network, inputs[:, t], state)
        answers.append(y)
    return np.stack(answers, axis=1)


# Files


def export(network: Network, form: str, path: Path, **options: Any) -> Path:
    """Write a network as `onnx`, `onnx-step`, `onnx-int`, `onnx-int-step`, `onnx-qdq` or `nir`."""
    return lmu_deploy.export(network, to=form, out=path, **options)


def save(network: Network, path: Path) -> Network:
    """Write a network to a file of the project's own and read it again."""
    lmu_deploy.save(network, path)
    return _layers(lmu_deploy.load(path))


def import_foreign(path: Path, architecture: Path | None = None, **options: str) -> Network:
    """Read a network from the file of another program."""
    return _layers(import_file(path, architecture=architecture, options=options or None))


def read_spiking_nir(path: Path) -> Network:
    """Read the spiking network in a NIR file of our own."""
    from converters.nir import read_nir  # an optional library

    return read_nir(path)


def matrices_of_keras(order: int, theta: float, cache_kib: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices of a memory as keras-lmu makes them in float32."""
    return keras_matrices(order, theta, "zoh", False, cache_kib)


# Judgement


def validate(
    network: Network, targets: str, folder: Path, use: tuple[Path, ...] = (), **options: Any
) -> list[float]:
    """Judge a network on several targets; give every number of the result but times and seeds."""
    data = options.pop("task", None)
    if data is not None:
        data = _in_the_order_of_the_file(data)
    with _plain_loop():
        # Shapley values came later, and causes of sources that may be zero are left out with them.
        report = lmu_deploy.validate(
            network, data, targets=targets, use=use, attribution_budget=0, **options
        )
    return _numbers(json.loads(report.to_json()))


def _in_the_order_of_the_file(path: str) -> Task:
    """Return a task whose samples are chosen as they stand, as when the outputs were recorded.

    The last tenth of the training samples validates. Samples of an own file are otherwise chosen at
    random.
    """
    with np.load(path, allow_pickle=False) as stored:
        x, y, x_test, y_test = (stored[f"{k}_{p}"] for p in ("train", "test") for k in "xy")
    kept = len(x) - len(x) // 10
    x, x_test = x.astype(np.float32), x_test.astype(np.float32)
    data = TaskData(Split(x[:kept], y[:kept]), Split(x[kept:], y[kept:]), Split(x_test, y_test))
    classes = y.ndim == 1
    kind, n_out = ("classification", int(y.max()) + 1) if classes else ("regression", y.shape[2])
    return Task(f"{path}", kind, x.shape[2], n_out, x.shape[1], lambda: data, identify=str)


def deploy(network: Network, target: str, **options: Any) -> list[float]:
    """Run a network on its task; give every number of the summary but times and seeds."""
    with _plain_loop():
        return _numbers(lmu_deploy.run(network, target=target, **options).summary())


_NOT_RESULTS = {
    "nodes",
    "wall_seconds",
    "seed",
    "version",
    "versions",
    "settings",
    "provenance",
    "hashes",
}
_LATER = {
    # Verdicts by equivalence, the comparison with the specification, Shapley values, remedies and
    # the NRMSE of each output came after the golden file.
    "difference_ci90",
    "margin",
    "needed",
    "specification",
    "damage",
    "unexplained",
    "parts",
    "parts_samples",
    "parts_orders",
    "parts_chips",
    "parts_tied",
    "remedies",
    "by_output",
}


def _numbers(node: Any, digits: int | None = None) -> list[float]:
    """Return the numbers in a tree of JSON, in the order of the file.

    Bounds of confidence intervals are rounded to 12 significant digits, because their last bits
    are those of a library function.
    """
    if isinstance(node, Mapping):
        left_out = _NOT_RESULTS | _LATER | ({"measured"} if "unexplained" in node else set())
        kept = ((key, value) for key, value in node.items() if key not in left_out)
        return [
            number
            for key, value in kept
            for number in _numbers(value, 12 if key.endswith("ci95") else digits)
        ]
    if isinstance(node, list | tuple):
        return [number for value in node for number in _numbers(value, digits)]
    if isinstance(node, bool) or node is None or isinstance(node, str):
        return []
    return [float(node) if digits is None else float(f"{node:.{digits}g}")]


def attribution(
    network: Network, inputs: np.ndarray, answers: np.ndarray, data: Path
) -> list[float]:
    """Return what each source of an integer or spiking network's error costs.

    Returns
    -------
    list of float
        Metric, output error and memory error after each source and of it alone, and the shares.
    """
    task = _in_the_order_of_the_file(data)
    spiking = isinstance(network, lmu_deploy.SpikingNetwork)
    with _plain_loop():
        found = (attribute_spiking if spiking else attribute)(network, inputs, answers, task)
    errors = [found.reference]
    for each in found.steps:
        errors += [each.after, each.alone]
    numbers = [n for e in errors for n in (e.metric, e.output, e.memory)]
    return numbers + [s for s in found.shares_in_turn() + found.shares_alone() if s is not None]


def chip_yield(network: Network, path: Path, **options: Any) -> list[float]:
    """Judge a network on several virtual chips; give every number of the record."""
    data = options.pop("task", None)
    if data is not None:
        data = _in_the_order_of_the_file(data)
    lmu_deploy.chip_yield(network, data, out=path, **options)
    return _numbers(json.loads(path.read_text()))


def violations(network: Network, profile: str) -> int:
    """Count in how many ways a network does not fit a chip."""
    return len(lmu_deploy.check(network, profile=profile))


# PyTorch


@cache
def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    return torch


def torch_answers(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Run a float network as modules of PyTorch, in float32."""
    torch = _torch()
    from lmu_deploy.nn.convert import to_sequence_model

    model = to_sequence_model(network).eval()
    with torch.no_grad():
        return model(torch.tensor(np.asarray(inputs, np.float32))).numpy()


def torch_layers(folder: Path, inputs: np.ndarray) -> Arrays:
    """Drive layers of every kind, forward and back, and import one module in three ways."""
    torch = _torch()
    from lmu_deploy.nn import LMU, LMUConfig, LSTMConfig, ModelConfig, SequenceModel

    found: Arrays = {}
    x = torch.tensor(np.asarray(inputs, np.float32))
    kinds: dict[str, dict[str, Any]] = {
        "recurrent": {},
        "feed-forward": {"hidden": "feedforward", "activation": "relu"},
        "memory alone": {"hidden": "none"},
        "feedback": {"hidden_to_memory": True, "memory_to_memory": True, "memory_bias": True},
        "trained theta": {"train_theta": True},
        "trained memory": {"train_memory": True, "memory_to_memory": True},
    }
    for name, options in kinds.items():
        torch.manual_seed(5)
        units = 0 if options.get("hidden") == "none" else 6
        layer = LMU(x.shape[2], units, order=4, theta=9, channels=2, **options)
        answer = layer(x)[0]
        answer.square().sum().backward()
        found[f"{name}: answers"] = answer.detach().numpy()
        grown = [p.grad.numpy() for p in layer.parameters() if p.grad is not None]
        found[f"{name}: gradients"] = grown
    torch.manual_seed(6)
    config = ModelConfig(
        n_in=x.shape[2],
        n_out=3,
        layers=(LMUConfig(units=5, order=4, theta=8), LSTMConfig(units=4)),
        return_sequences=True,
        readout_bias=True,
    )
    model = SequenceModel(config)
    found["model: answers"] = model(x).detach().numpy()
    found["model: imported"] = _layers(lmu_deploy.from_torch(model))
    path = folder / "state.pt"
    torch.save({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    found["model: state imported"] = import_foreign(path, activation="tanh")
    return found


def trained(task: str, config: Path) -> Network:
    """Train a network for a few steps."""
    _torch()
    return _layers(lmu_deploy.train(task, "lmu", config=config, seed=3, device="cpu").network)
