"""Target `integer`: the vectorised twin of an integer network, whole test sets in batches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lmu_deploy.checks import check_array, check_choice, check_inputs
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from targets.base import Progress, Run, check_supported
from targets.integer.bounds import float64_objections
from targets.integer.collector import Collector
from targets.integer.engine import ENGINES, choose_engine
from targets.integer.machine import Machine, State

_BATCH = 256


@dataclass(frozen=True)
class Stream:
    """What :func:`step` carries from call to call: a network made ready, and its state."""

    machine: Machine
    state: State


def step(
    network: IntegerNetwork, x: np.ndarray, stream: Stream | None = None, engine: str = "numpy"
) -> tuple[np.ndarray, Stream]:
    """Run one step, so that a caller can feed a network as its data come.

    Parameters
    ----------
    network : IntegerNetwork
    x : ndarray, shape (samples, n_in)
        Real inputs of this step.
    stream : Stream, optional
        What the call for the step before gave; None starts anew.
    engine : {"numpy", "torch", "auto"}
        Of a new stream.

    Returns
    -------
    y : ndarray, shape (samples, n_out), int64
        The readout; ``y * network.readout.output.scale`` is the real value.
    stream : Stream
        For the next step; the one given stays as it was.

    Raises
    ------
    InputError
        On inputs of another shape or with NaN, or a stream of another network.
    """
    x = check_array("input", np.asarray(x, dtype=np.float64), (None, network.n_in))
    if stream is None:
        machine = Machine(network, choose_engine(network, engine))
        stream = Stream(machine, machine.start(len(x)))
    elif stream.machine.network is not network:
        raise InputError("the stream belongs to another network; start one anew with None.")
    machine = stream.machine
    state = stream.state.copy(machine.engine)
    check_array("input", x, (len(state.m[0]), network.n_in))
    y = machine.engine.numpy(machine.advance(state, x))
    return y.astype(np.int64), Stream(machine, state.copy(machine.engine))


class IntegerTarget:
    """Runs every IntegerNetwork as docs/integer-semantics.md says.

    Parameters
    ----------
    engine : {"auto", "numpy", "torch"}
        Which arrays hold the integers; all give the same ones. See engine.py.
    """

    name = "integer"
    accepts: tuple[type, ...] = (IntegerNetwork,)

    def __init__(self, engine: str = "auto") -> None:
        self._engine = check_choice("engine", engine, ENGINES)

    def unsupported(self, network: IntegerNetwork) -> list[str]:
        """Name the connections whose sums float64 could not hold exactly."""
        return float64_objections(network)

    def run(
        self,
        network: IntegerNetwork,
        inputs: np.ndarray,
        *,
        record: bool = False,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Run:
        """Run a set of inputs; see :class:`targets.base.Target`. `seed` is not used."""
        check_supported(self, network)
        inputs = check_inputs(inputs, network.n_in)
        start = time.perf_counter()
        sample_steps = inputs.shape[0] * inputs.shape[1]
        machine = Machine(network, choose_engine(network, self._engine, sample_steps))
        collector = Collector(machine, inputs.shape, record)
        for first in range(0, len(inputs), _BATCH):
            batch = slice(first, min(first + _BATCH, len(inputs)))
            state = machine.start(batch.stop - batch.start)
            for t in range(inputs.shape[1]):
                collector.take(batch, t, machine.advance(state, inputs[batch, t]), state)
            collector.close(state)
            if progress:
                progress(batch.stop, len(inputs))
        return collector.run(self.name, seed, time.perf_counter() - start)
