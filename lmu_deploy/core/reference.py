"""The float reference: a network in float64, with recorded states.

:func:`run_reference` runs a graph by :mod:`lmu_deploy.core.graph.executor`, in the fastest exact
form of every operator. A chain of layers (:mod:`lmu_deploy.core.network`) runs in the plain loop of
this module, which follows the equations literally; calibrations measure with it, and tests compare
the fast forms with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.executor import (
    Recording,
    at_once,
    check_frames,
    check_lengths,
    record_states,
    run,
)
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, LSTMLayer
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.validation import check_inputs


@dataclass(frozen=True)
class Trace:
    """Outputs and, if recorded, states of a run of the reference.

    Attributes
    ----------
    outputs : ndarray, shape (samples, *frame), or (samples, steps, *frame) for sequence networks
    m : ndarray, shape (samples, steps, states), or None
        States of all memories, one node after the other; None unless recorded, and where nodes have
        fewer steps than the input.
    h : ndarray, shape (samples, steps, units), or None
        Hidden units of all nodes that have them, likewise.
    y : ndarray, shape (samples, steps, n_out), or None
        The output at every step, likewise; of a network that answers once, its answer to the steps
        so far.
    memory, hidden : mapping of str to ndarray, shape (samples, steps, size)
        The same states by node of a graph, if recorded.
    nodes : mapping of str to ndarray, shape (samples, steps, *frame)
        Outputs of the nodes that were asked for.
    """

    outputs: np.ndarray
    m: np.ndarray | None
    h: np.ndarray | None
    y: np.ndarray | None
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)
    hidden: Mapping[str, np.ndarray] = field(default_factory=dict)
    nodes: Mapping[str, np.ndarray] = field(default_factory=dict)


def activate(name: str, z: np.ndarray) -> np.ndarray:
    """Return f(z) for a hidden activation f, one of ``network.ACTIVATIONS``."""
    if name == "tanh":
        return np.tanh(z)
    if name == "relu":
        return np.maximum(z, 0.0)
    return np.clip(z, -1.0, 1.0) if name == "hard-tanh" else z


def run_reference(
    network: Network | LMUNetwork,
    inputs: np.ndarray,
    record: bool = False,
    batch_size: int = 500,
    progress: Progress | None = None,
    *,
    lengths: np.ndarray | None = None,
    nodes: Sequence[str] = (),
) -> Trace:
    """Run `network` in float64.

    Parameters
    ----------
    network : Network or LMUNetwork
    inputs : ndarray, shape (samples, steps, *frame)
    record : bool
        Store m, h and y of every step (samples * steps * (states + units + n_out) * 8 bytes).
    batch_size : int
        Largest number of samples computed at once.
    progress : callable, optional
        Called with (samples done, total samples).
    lengths : ndarray of int, shape (samples,), optional
        Of a graph: steps of each sequence that count, from its first; what follows is padding. By
        default all.
    nodes : sequence of str
        Of a graph: names of nodes whose outputs are stored too.

    Raises
    ------
    InputError
        When the inputs have a wrong number of features or are not finite, lengths do not fit, or
        there is no node of a name.

    Examples
    --------
    >>> import numpy as np
    >>> import lmu_deploy as ld
    >>> network = ld.load("examples/models/digits.safetensors")
    >>> trace = ld.run_reference(network, np.zeros((3, 8, 8)), record=True, nodes=["readout"])
    >>> trace.m.shape, trace.memory["layer0"].shape, trace.nodes["readout"].shape
    ((3, 8, 16), (3, 8, 16), (3, 8, 10))
    """
    if isinstance(network, LMUNetwork):
        if lengths is not None or nodes:
            raise InputError("lengths and nodes are for graphs; give a Network.")
        return _run_layers(network, inputs, record, batch_size, progress)
    inputs = check_frames(inputs, network.frame)
    samples, steps = inputs.shape[:2]
    if lengths is not None:
        lengths = check_lengths(lengths, samples, steps)
    parts = []
    for batch in _batches(network, samples, steps, batch_size, progress):
        counts = None if lengths is None else lengths[batch]
        parts.append(_run_graph(network, inputs[batch], record, nodes, counts))
    return _joined(parts)


def _batches(
    network: Network, samples: int, steps: int, batch_size: int, progress: Progress | None
) -> Iterator[slice]:
    """Yield the samples that are computed at once; tell the progress."""
    batch_size = min(batch_size, at_once(network, steps))
    for start in range(0, samples, batch_size):
        batch = slice(start, min(start + batch_size, samples))
        yield batch
        if progress:
            progress(batch.stop, samples)


def _run_graph(
    network: Network,
    inputs: np.ndarray,
    recording: bool,
    nodes: Sequence[str],
    lengths: np.ndarray | None,
) -> Trace:
    outputs = run(network, inputs, lengths, batch_size=len(inputs))
    if not recording and not nodes:
        return Trace(outputs, None, None, None)
    found = record_states(network, inputs, lengths, nodes)
    if not recording:
        return Trace(outputs, None, None, None, nodes=found.nodes)
    joined = _by_column(found, inputs.shape[:2])
    return Trace(outputs, *joined, found.memory, found.hidden, found.nodes)


def _by_column(
    found: Recording, both: tuple[int, int]
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return m, h and y with one column for each state; None if they have fewer steps."""
    answers = found.answers.reshape(*found.answers.shape[:2], -1)
    groups = [list(found.memory.values()), list(found.hidden.values()), [answers]]
    if any(array.shape[:2] != both for group in groups for array in group):
        return None, None, None
    m, h, y = (np.concatenate([np.empty((*both, 0)), *group], axis=2) for group in groups)
    return m, h, y


def _joined(parts: Sequence[Trace]) -> Trace:
    """Return the traces of all samples as one."""
    if len(parts) == 1:
        return parts[0]

    def joined(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Mapping):
            return {name: joined([each[name] for each in values]) for name in values[0]}
        return None if values[0] is None else np.concatenate(values)

    names = [each.name for each in fields(Trace)]
    return Trace(**{name: joined([getattr(part, name) for part in parts]) for name in names})


def _run_layers(
    network: LMUNetwork,
    inputs: np.ndarray,
    record: bool,
    batch_size: int,
    progress: Progress | None,
) -> Trace:
    """Run a chain of layers step by step."""
    inputs = check_inputs(inputs, network.n_in)
    samples, steps, _ = inputs.shape
    keep_y = record or network.return_sequences
    y = np.empty((samples, steps if keep_y else 1, network.n_out))
    n_m = sum(layer.memory.size for layer in network.layers if isinstance(layer, LMULayer))
    n_h = sum(layer.n_out for layer in network.layers if has_hidden(layer))
    m = np.empty((samples, steps, n_m)) if record else None
    h = np.empty((samples, steps, n_h)) if record else None
    bias = 0.0 if network.readout.bias is None else network.readout.bias.astype(np.float64)
    kernel = network.readout.kernel.astype(np.float64)
    for start in range(0, samples, batch_size):
        batch = slice(start, min(start + batch_size, samples))
        states = [LayerSteps(layer, len(inputs[batch])) for layer in network.layers]
        for t in range(steps):
            signal = inputs[batch, t]
            for state in states:
                signal = state.advance(signal)
            if keep_y or t == steps - 1:
                y[batch, t if keep_y else 0] = signal @ kernel + bias
            if m is not None and h is not None:
                memories = [s.m for s in states if isinstance(s.layer, LMULayer)]
                m[batch, t] = np.concatenate(memories, axis=1) if memories else 0.0
                hiddens = [s.h for s in states if has_hidden(s.layer)]
                h[batch, t] = np.concatenate(hiddens, axis=1) if hiddens else 0.0
        if progress:
            progress(batch.stop, samples)
    return Trace(y if network.return_sequences else y[:, -1], m, h, y if record else None)


def has_hidden(layer: LMULayer | LSTMLayer) -> bool:
    """Return whether a layer has hidden units."""
    return isinstance(layer, LSTMLayer) or layer.hidden is not None


class LayerSteps:
    """States of one layer for a batch, and the update of one step, as its equations are written."""

    def __init__(self, layer: LMULayer | LSTMLayer, batch: int) -> None:
        self.layer = layer
        self.m = np.zeros((batch, layer.memory.size if isinstance(layer, LMULayer) else 0))
        self.h = np.zeros((batch, layer.n_out if has_hidden(layer) else 0))
        self.c = np.zeros_like(self.h)

    def advance(self, x: np.ndarray) -> np.ndarray:
        """Take an input, shape (batch, n_in); return the output of the layer."""
        if isinstance(self.layer, LSTMLayer):
            return self._advance_lstm(self.layer, x)
        self._advance_memory(self.layer, x)
        if self.layer.hidden is None:
            return self.m
        self._advance_hidden(self.layer.hidden, x)
        return self.h

    def signals(self) -> dict[str, np.ndarray]:
        """Return what the layer holds after a step, by name: memory, hidden, cell."""
        if isinstance(self.layer, LSTMLayer):
            return {"hidden": self.h, "cell": self.c}
        hidden = {} if self.layer.hidden is None else {"hidden": self.h}
        return {"memory": self.m, **hidden}

    def _advance_memory(self, layer: LMULayer, x: np.ndarray) -> None:
        u = x @ layer.input_encoders.astype(np.float64)
        if layer.hidden_encoders is not None:
            u = u + self.h @ layer.hidden_encoders
        if layer.memory_encoders is not None:
            u = u + self.m @ layer.memory_encoders
        if layer.memory_bias is not None:
            u = u + layer.memory_bias
        memory = layer.memory
        m = self.m.reshape(-1, memory.channels, memory.order) @ memory.a_bar.T
        self.m = (m + u[:, :, None] * memory.b_bar).reshape(self.m.shape)

    def _advance_hidden(self, hidden: Hidden, x: np.ndarray) -> None:
        z = self.m @ hidden.memory_kernel
        if hidden.input_kernel is not None:
            z = z + x @ hidden.input_kernel
        if hidden.recurrent_kernel is not None:
            z = z + self.h @ hidden.recurrent_kernel
        if hidden.bias is not None:
            z = z + hidden.bias
        self.h = activate(hidden.activation, z)

    def _advance_lstm(self, layer: LSTMLayer, x: np.ndarray) -> np.ndarray:
        gates = x @ layer.kernel.astype(np.float64) + self.h @ layer.recurrent_kernel + layer.bias
        i, f, g, o = np.split(gates, 4, axis=1)
        self.c = _sigmoid(f) * self.c + _sigmoid(i) * np.tanh(g)
        self.h = _sigmoid(o) * np.tanh(self.c)
        return self.h


def _sigmoid(z: np.ndarray) -> np.ndarray:
    """Return the logistic function, computed with tanh to avoid overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))
