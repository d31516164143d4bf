"""Build the Lava processes of a job: Lava's LIF and Dense, and the parts of this package.

Only the worker imports this module, because it imports Lava. Loihi stores weights of mixed sign as
even numbers from -256 to 254, so a Dense stores twice each weight of 8 bits, and its exponent is
one less: the shift removes the factor without a remainder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lmu_deploy.core.spiking.loihi import LoihiConnection, LoihiCurrent, LoihiNeurons
from targets.lava_lif.processes import models
from targets.lava_lif.target import StoredStage, job_folders, read_job, stage_folders
from targets.spiking.layers import Job

from lava.proc.dense.process import Dense  # isort: skip
from lava.proc.lif.process import LIF  # isort: skip
from lava.utils.weightutils import SignMode  # isort: skip

_GRADED, _BINARY = 24, 0


def runs(folder: Path) -> Iterator[tuple[Any, int]]:
    """Yield one of the processes of each job and stage in a folder, and its chip steps."""
    for place in job_folders(folder):
        job = read_job(place)
        yield build(job, place), job.chip_steps
    for place in stage_folders(folder):
        stage = StoredStage(place)
        yield build_stage(stage), stage.chip_steps


def build(job: Job, folder: Path) -> Any:
    """Build and connect all processes of a job.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of its records.

    Returns
    -------
    host : Host
        One of the connected processes; running it runs them all.
    """
    memory, neurons = job.memory, job.memory.neurons
    host, relays = models.Host(job, folder), models.Relays(job, folder)
    lif = _lif(neurons, job.samples)
    samples, by_channel = job.samples, memory.input_weights.reshape(memory.scales.shape)
    inputs = _synapses(samples, _columns(by_channel), _GRADED)
    encoders = _synapses(samples, _columns(neurons.encoders), _GRADED, neurons.encoder_exponent)
    decoders = _synapses(samples, _blocks(memory.decoders), _BINARY)
    host.input_out.connect(inputs.s_in)
    inputs.a_out.connect(relays.driven_in)
    relays.message_out.connect(encoders.s_in)
    encoders.a_out.connect(lif.a_in)
    lif.s_out.connect(decoders.s_in)
    decoders.a_out.connect(relays.decoded_in)
    relays.message_out.connect(host.message_in)
    relays.state_out.connect(host.state_in)
    lif.s_out.connect(host.spikes_in)
    return host


def build_stage(stage: StoredStage) -> Any:
    """Build and connect all processes of a stage of a graph.

    Parameters
    ----------
    stage : StoredStage

    Returns
    -------
    process
        One of the connected processes; running it runs them all.
    """
    samples = stage.samples
    players = {n: models.Player(part, stage.messages(n)) for n, part in stage.inputs.items()}
    models.offer_ports(max(len(each.connections) + len(each.currents) for each in stage.parts))
    relays, spikes = {}, {}
    for ensemble in stage.parts:
        arriving = [_arriving(each, samples) for each in ensemble.connections]
        arriving += [_arriving(each, samples) for each in ensemble.currents]
        relays[ensemble.name] = models.GraphRelays(stage.relays[ensemble.name], arriving)
        if (neurons := ensemble.populations) is not None:
            lif, exponent = _lif(neurons, samples), neurons.encoder_exponent
            encoders = _synapses(samples, _columns(neurons.encoders), _GRADED, exponent)
            relays[ensemble.name].message_out.connect(encoders.s_in)
            encoders.a_out.connect(lif.a_in)
            lif.s_out.connect(models.Counter(stage.neurons[ensemble.name]).events_in)
            spikes[ensemble.name] = lif.s_out
    for ensemble in stage.parts:
        made = [(spikes[e.source], _blocks(e.weights), _BINARY) for e in ensemble.connections]
        made += [(players[c.source].message_out, c.weights, _GRADED) for c in ensemble.currents]
        for port, (sender, weights, bits) in zip(models.IN_PORTS, made, strict=False):
            dense = _synapses(samples, weights, bits)
            sender.connect(dense.s_in)
            dense.a_out.connect(getattr(relays[ensemble.name], port))
    return next(iter(relays.values()))


def _arriving(synapses: LoihiConnection | LoihiCurrent, samples: int) -> models.Arriving:
    if isinstance(synapses, LoihiConnection):
        register = models.FAST if synapses.fast else models.SLOW
    else:
        register = models.DIRECT if synapses.direct else models.SLOW
    gains = np.tile(synapses.multiplier, samples), np.tile(synapses.shift, samples)
    return models.Arriving(register, *gains)


def _lif(neurons: LoihiNeurons, samples: int) -> Any:
    return LIF(
        shape=(samples * neurons.states * neurons.neurons,),
        du=neurons.current_decay,
        dv=neurons.membrane_decay,
        vth=neurons.threshold,
        bias_mant=np.tile(neurons.bias_mantissas.reshape(-1), samples),
        bias_exp=neurons.bias_exponent,
    )


def _synapses(samples: int, weights: np.ndarray, message_bits: int, divided: int = 0) -> Any:
    """Build a Dense for all samples side by side; sums are divided by 2^divided, rounding down."""
    copies = np.kron(np.eye(samples, dtype=np.int32), 2 * weights.astype(np.int32))
    return Dense(
        weights=copies,
        weight_exp=-1 - divided,
        num_weight_bits=8,
        sign_mode=SignMode.MIXED,
        num_message_bits=message_bits,
    )


def _columns(rows: np.ndarray) -> np.ndarray:
    """Return the matrix (targets, sources) of sources that each have separate targets."""
    sources, targets = rows.shape
    matrix = np.zeros((sources, targets, sources), np.int8)
    matrix[np.arange(sources), :, np.arange(sources)] = rows
    return matrix.reshape(sources * targets, sources)


def _blocks(blocks: np.ndarray) -> np.ndarray:
    """Build a block-diagonal matrix of blocks (number, rows, columns)."""
    number, rows, columns = blocks.shape
    matrix = np.zeros((number, rows, number, columns), np.int8)
    matrix[np.arange(number), :, np.arange(number)] = blocks
    return matrix.reshape(number * rows, number * columns)
