"""Run a Network in float64: whole sequences in the fastest exact form, or frame by frame.

Nodes are computed in order, a batch of samples at a time. Where only the last step of a node is
needed, only that step is computed: a linear memory then is one product with its impulse response.
:class:`Stream` runs the same network one frame at a time, straight from the equations, and is what
the fast forms are tested against.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import INPUT, Network, Node
from lmu_deploy.core.graph.time import Mask, Reduce
from lmu_deploy.core.progress import Progress
from lmu_deploy.core.representation import counted
from lmu_deploy.core.validation import check_array

_VALUES_AT_ONCE = 2**26
"""Values of the widest signal that a batch holds (half a gigabyte in float64)."""


def run(
    network: Network,
    inputs: np.ndarray,
    lengths: np.ndarray | None = None,
    *,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the outputs of a network.

    Parameters
    ----------
    network : Network
    inputs : ndarray, shape (samples, steps, *frame)
    lengths : ndarray of int, shape (samples,), optional
        Steps of each sequence that count, from its first; what follows is padding. By default all.
    batch_size : int, optional
        Samples computed at once; by default as many as fit into about half a gigabyte.
    progress : callable, optional
        Called with (samples done, samples in all).

    Returns
    -------
    ndarray, shape (samples, steps, *frame) or (samples, *frame), float64

    Raises
    ------
    InputError
        When inputs or lengths do not fit.
    """
    inputs, lengths = _checked(network, inputs, lengths)
    samples, steps = inputs.shape[:2]
    if batch_size is None:
        batch_size = min(samples, at_once(network, steps))
    parts = []
    for start in range(0, samples, batch_size):
        batch = slice(start, min(start + batch_size, samples))
        some = None if lengths is None else lengths[batch]
        parts.append(_forward(network, inputs[batch].astype(np.float64), some))
        if progress:
            progress(batch.stop, samples)
    return np.concatenate(parts)


def at_once(network: Network, steps: int) -> int:
    """Return how many samples fit into about half a gigabyte, at least one."""
    widest = max(shape.size for shape in network.shapes.values())
    return max(1, _VALUES_AT_ONCE // (widest * steps))


@dataclass(frozen=True)
class Recording:
    """Values of the nodes of a network at every step.

    Attributes
    ----------
    memory : mapping of str to ndarray, shape (samples, steps, channels * order)
        States of the memories, by node.
    hidden : mapping of str to ndarray, shape (samples, steps, units)
        Hidden units of LMUs, LSTMs, GRUs and simple recurrent units, by node.
    nodes : mapping of str to ndarray, shape (samples, steps, *frame)
        Outputs of the nodes that were asked for.
    answers : ndarray, shape (samples, steps, *frame)
        The network's output; if it answers once, its answer to the steps so far.
    """

    memory: Mapping[str, np.ndarray]
    hidden: Mapping[str, np.ndarray]
    nodes: Mapping[str, np.ndarray]
    answers: np.ndarray


def record_states(
    network: Network,
    inputs: np.ndarray,
    lengths: np.ndarray | None = None,
    nodes: Sequence[str] = (),
) -> Recording:
    """Return what the nodes of a network hold at every step.

    Parameters
    ----------
    network : Network
    inputs : ndarray, shape (samples, steps, *frame)
    lengths : ndarray of int, shape (samples,), optional
        As for :func:`run`.
    nodes : sequence of str
        Names of nodes whose outputs are kept too.

    Raises
    ------
    InputError
        When inputs or lengths do not fit, or there is no node of a name.
    """
    inputs, lengths = _checked(network, inputs, lengths)
    if unknown := [name for name in nodes if name not in network.shapes]:
        known = ", ".join(node.name for node in network.nodes)
        raise InputError(f"the network has no node {unknown[0]!r}; its nodes are {known}.")
    values: dict[str, np.ndarray] = {INPUT: inputs.astype(np.float64)}
    counts: dict[str, np.ndarray | None] = {INPUT: lengths}
    states: dict[str, dict[str, np.ndarray]] = {"memory": {}, "hidden": {}}
    for node in network.nodes:
        given = [values[name] for name in node.inputs]
        if network.shapes[node.inputs[0]].sequence:
            _check_steps(node, [len(x[0]) for x in given])
        elif len({len(x[0]) for x in given}) > 1:  # answers to different numbers of steps
            given = [x[:, -1:] for x in given]
        before = counts[node.inputs[0]]
        counts[node.name] = _counted(node, before, given)
        values[node.name], found = node.operator.trace(*given, lengths=before)
        for part, array in found.items():
            states[part][node.name] = array
    wanted = {name: values[name] for name in nodes}
    return Recording(states["memory"], states["hidden"], wanted, values[network.output])


def _checked(network: Network, inputs: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return inputs and lengths, if there are any, that give every node a frame."""
    inputs = check_frames(inputs, network.frame)
    if lengths is not None:
        lengths = check_lengths(lengths, *inputs.shape[:2])
    if lengths is None or lengths.min() == inputs.shape[1]:
        check_steps(network, inputs.shape[1])
    else:
        check_steps(network, int(lengths.min()), "the shortest sequence")
    return inputs, lengths


def check_frames(inputs: Any, frame: tuple[int, ...]) -> np.ndarray:
    """Return inputs as an array of shape (samples, steps, *frame), all finite.

    Raises
    ------
    InputError
        When they have another shape, or there are none.
    """
    array = np.asarray(inputs)
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    checked = check_array("input", array, (None, None, *frame))
    if 0 in checked.shape[:2]:
        raise InputError("input has no samples or no steps; give at least one of each.")
    return checked


def enough_steps(steps: int, counts: Callable[[int], Mapping[Any, int]]) -> int:
    """Return the least number of steps from `steps` on with which everything has a frame.

    Parameters
    ----------
    steps : int
        At least 1.
    counts : callable
        Returns from a number of steps how many frames each node or population has.
    """

    def enough(steps: int) -> bool:
        return min(counts(steps).values()) > 0

    most = steps
    while not enough(most):
        most *= 2
    return bisect_left(range(most), True, lo=steps, key=enough)


def check_counts(
    steps: int, counts: Callable[[int], Mapping[Any, int]], inputs: str = "the input"
) -> None:
    """Raise InputError unless an input has so many steps that everything has a frame.

    Parameters
    ----------
    steps, counts
        As for :func:`enough_steps`.
    inputs : str
        What has the steps.
    """
    without = [name for name, frames in counts(steps).items() if frames < 1]
    if without:
        raise InputError(
            f"{counted(steps, 'step')} of {inputs} {'gives' if steps == 1 else 'give'} no frame of "
            f"{without[0]}; give at least {enough_steps(steps, counts)} steps."
        )


def check_steps(network: Network, steps: int, inputs: str = "the input") -> None:
    """Raise InputError unless every node has a frame for so many steps; see `check_counts`."""
    check_counts(steps, network.frame_counts, inputs)


def check_lengths(lengths: Any, samples: int, steps: int) -> np.ndarray:
    """Return lengths as whole numbers, one for each sequence, from 1 to `steps`.

    Raises
    ------
    InputError
        When they are of another kind.
    """
    array = np.asarray(lengths)
    if array.shape != (samples,) or array.dtype.kind not in "iu":
        raise InputError(f"lengths must be {samples} whole numbers, one for each sequence.")
    if array.min() < 1 or array.max() > steps:
        raise InputError(
            f"lengths go from {array.min()} to {array.max()}; each must be from 1 to {steps}."
        )
    return array.astype(np.int64)


def demands(network: Network, has_lengths: bool = False) -> dict[str, bool]:
    """Say of every node whether all its steps are needed; otherwise its last one is.

    Parameters
    ----------
    network : Network
    has_lengths : bool
        Whether sequences end at different steps.
    """
    needed = {network.output: True}
    masked = _masked(network)
    for node in reversed(network.nodes):
        whole = needed.get(node.name, False)
        operator = node.operator
        last = isinstance(operator, Reduce) and operator.kind == "last" and not has_lengths
        last = last and masked.isdisjoint(node.inputs)
        through = last or (operator.framewise and not whole)
        for name in node.inputs:
            needed[name] = needed.get(name, False) or not through
    return needed


def _masked(network: Network) -> set[str]:
    """Return the nodes at whose outputs sequences have different lengths."""
    found: set[str] = set()
    for node in network.nodes:
        if isinstance(node.operator, Mask) or not found.isdisjoint(node.inputs):
            found.add(node.name)
    return found


def _forward(network: Network, inputs: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    needed = demands(network, lengths is not None)
    uses = {name: sum(name in node.inputs for node in network.nodes) for name in needed}
    values: dict[str, np.ndarray] = {INPUT: inputs if needed[INPUT] else inputs[:, -1]}
    counts: dict[str, np.ndarray | None] = {INPUT: lengths}
    for node in network.nodes:
        given = [values[name] for name in node.inputs]
        counts[node.name] = _counted(node, counts[node.inputs[0]], given)
        values[node.name] = _value(node, network, given, needed, counts[node.inputs[0]])
        for name in set(node.inputs):
            uses[name] -= 1
            if not uses[name] and name != network.output:
                del values[name]
    return values[network.output]


def _counted(
    node: Node, before: np.ndarray | None, given: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Return how many frames of each sequence count behind a node; None if all do.

    Raises
    ------
    InputError
        When a sequence has none, because too much of it is padding.
    """
    found = node.operator.counted(before, *given)
    if before is not None and found is not None and found.min() < 1:
        sequence = int(found.argmin())
        raise InputError(
            f"sequence {sequence} has {counted(int(before[sequence]), 'frame')} that count before "
            f"node {node.name}, which give no frame of it; leave it out, or give a longer one."
        )
    return found


def _value(
    node: Node,
    network: Network,
    given: Sequence[np.ndarray],
    needed: dict[str, bool],
    lengths: np.ndarray | None,
) -> np.ndarray:
    """Compute a node's output: all steps, or the frame of the last one."""
    operator = node.operator
    if network.shapes[node.inputs[0]].sequence:
        whole = zip(node.inputs, given, strict=True)
        _check_steps(node, [len(x[0]) for name, x in whole if needed[name]])
    if not network.shapes[node.inputs[0]].sequence:
        return operator.forward(*given)
    if isinstance(operator, Reduce) and operator.kind == "last" and lengths is None:
        (x,) = given
        return x[:, -1] if needed[node.inputs[0]] else x
    if needed[node.name] or not network.shapes[node.name].sequence:
        return operator.forward(*given, lengths=lengths)
    if operator.framewise:
        frames = [
            x[:, -1] if needed[name] else x for name, x in zip(node.inputs, given, strict=True)
        ]
        return operator.forward(*frames)
    return operator.last(*given)


def _check_steps(node: Node, steps: Sequence[int]) -> None:
    """Raise InputError when the inputs of a node do not have equally many steps."""
    if len(set(steps)) > 1:
        raise InputError(
            f"the inputs of node {node.name} have {' and '.join(map(str, sorted(set(steps))))} "
            "steps; they must have equally many."
        )


class Stream:
    """A network that is fed one frame at a time.

    Parameters
    ----------
    network : Network
    samples : int
        How many sequences are fed side by side.

    Examples
    --------
    ``outputs = stream.push(frame)`` returns the frames of the output that are ready, and
    ``stream.finish()`` those that remain when the sequences end.
    """

    def __init__(self, network: Network, samples: int = 1) -> None:
        self.network = network
        self._states = {node.name: node.operator.start(samples) for node in network.nodes}
        self._waiting: dict[tuple[str, int], deque[np.ndarray]] = {
            (node.name, i): deque() for node in network.nodes for i in range(len(node.inputs))
        }

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        """Feed one frame of every sequence, shape (samples, *frame)."""
        return self._spread({INPUT: [np.asarray(frame, np.float64)]}, end=False)

    def finish(self) -> list[np.ndarray]:
        """End the sequences; return the frames that remain."""
        return self._spread({}, end=True)

    def copy(self) -> Stream:
        """Return an independent copy; an operator never changes a state in place."""
        other: Stream = object.__new__(Stream)
        other.network, other._states = self.network, dict(self._states)
        other._waiting = {key: deque(queue) for key, queue in self._waiting.items()}
        return other

    def _spread(self, ready: dict[str, list[np.ndarray]], end: bool) -> list[np.ndarray]:
        """Take frames through all nodes; return those that the output node gives."""
        for node in self.network.nodes:
            for i, name in enumerate(node.inputs):
                self._waiting[node.name, i].extend(ready.get(name, []))
            queues = [self._waiting[node.name, i] for i in range(len(node.inputs))]
            found: list[np.ndarray] = []
            while all(queues):
                frames = [queue.popleft() for queue in queues]
                self._states[node.name], some = node.operator.step(self._states[node.name], *frames)
                found += some
            if end:
                found += node.operator.finish(self._states[node.name])
            ready[node.name] = found
        return ready[self.network.output]


def run_stepwise(network: Network, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs of a network, computed frame by frame: the oracle of :func:`run`.

    Where a network leaves out padding, sequences go one at a time, and zeros fill up the outputs.
    """
    inputs, _ = _checked(network, inputs, None)
    if len(inputs) > 1 and _masked(network):
        each = [run_stepwise(network, inputs[i : i + 1]) for i in range(len(inputs))]
        return np.concatenate(_filled(each) if network.return_sequences else each)
    stream = Stream(network, len(inputs))
    found = [y for t in range(inputs.shape[1]) for y in stream.push(inputs[:, t])]
    found += stream.finish()
    if not found:
        raise InputError(
            "a sequence has too few frames besides its padding for an answer; leave it out."
        )
    return np.stack(found, axis=1) if network.return_sequences else found[-1]


def _filled(outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Return outputs of different numbers of steps with zeros behind the shorter ones."""
    steps = max(y.shape[1] for y in outputs)
    rest = [(0, 0)] * (outputs[0].ndim - 2)
    return [np.pad(y, [(0, 0), (0, steps - y.shape[1]), *rest]) for y in outputs]
