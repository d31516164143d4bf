"""Feeding a network step by step, as its data come: all that is carried from call to call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmu_deploy.checks import check_array
from lmu_deploy.errors import InputError
from lmu_deploy.integer_network import IntegerNetwork
from lmu_deploy.segments import ChipSegment, segments
from targets.host_lstm import HostSteps
from targets.integer.engine import choose_engine
from targets.integer.machine import Machine, State


@dataclass(frozen=True)
class Stream:
    """What :func:`step` carries from call to call: a network made ready, and its state.

    A network that is partly on the host has a stream for each of its segments, in `parts`, and the
    machine and the state here are those of the first on the chip.
    """

    machine: Machine
    state: State
    parts: tuple[Stream | HostSteps, ...] = ()
    network: IntegerNetwork | None = None


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
    engine : {"numpy", "torch", "numba", "auto"}
        Of a new stream.

    Returns
    -------
    y : ndarray, shape (samples, n_out), int64
        The readout; ``y * network.readout.output.scale`` is the real value. Where the readout is on
        the host, real numbers.
    stream : Stream
        For the next step; the one given stays as it was.

    Raises
    ------
    InputError
        On inputs of another shape or with NaN, or a stream of another network.
    """
    x = check_array("input", np.asarray(x, dtype=np.float64), (None, network.n_in))
    if stream is None:
        stream = _start(network, len(x), engine)
    elif (stream.network or stream.machine.network) is not network:
        raise InputError("the stream belongs to another network; start one anew with None.")
    check_array("input", x, (len(stream.state.m[0]), network.n_in))
    if not stream.parts:
        return _advance(stream, x)
    signal = x
    parts: list[Stream | HostSteps] = []
    for part in stream.parts:
        if isinstance(part, HostSteps):
            host = part.copy()
            signal = host.advance(signal)
            parts.append(host)
            continue
        signal, after = _advance(part, signal)
        parts.append(after)
        if part is not stream.parts[-1]:  # what the messages that are handed over stand for
            signal = signal * part.machine.network.chip_readout.output.scale
    return signal, _together(network, tuple(parts))


def _start(network: IntegerNetwork, samples: int, engine: str) -> Stream:
    if not network.on_host:
        machine = Machine(network, choose_engine(network, engine))
        return Stream(machine, machine.start(samples))
    parts = tuple(
        _start(part.network, samples, engine)
        if isinstance(part, ChipSegment)
        else HostSteps(part, samples)
        for part in segments(network)
    )
    return _together(network, parts)


def _together(network: IntegerNetwork, parts: tuple[Stream | HostSteps, ...]) -> Stream:
    first = next(part for part in parts if isinstance(part, Stream))
    return Stream(first.machine, first.state, parts, network)


def _advance(stream: Stream, x: np.ndarray) -> tuple[np.ndarray, Stream]:
    """Advance a network that is all on the chip."""
    machine = stream.machine
    state = stream.state.copy(machine.engine)
    y = machine.engine.numpy(machine.advance(state, x))
    return y.astype(np.int64), Stream(machine, state.copy(machine.engine))
