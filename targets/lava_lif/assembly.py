"""Build the Lava processes of a job: Lava's LIF and Dense, and the parts of this package.

Only the worker imports this module, because it imports Lava. Loihi stores weights of mixed sign as
even numbers from -256 to 254, so a Dense stores twice each weight of 8 bits, and its exponent is
one less: the shift removes the factor without a remainder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from targets.lava_lif.processes import models
from targets.spiking.layers import Job

from lava.proc.dense.process import Dense  # isort: skip
from lava.proc.lif.process import LIF  # isort: skip
from lava.utils.weightutils import SignMode  # isort: skip

_GRADED, _BINARY = 24, 0


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
    lif = LIF(
        shape=(job.samples * memory.size,),
        du=neurons.current_decay,
        dv=neurons.membrane_decay,
        vth=neurons.threshold,
        bias_mant=np.tile(neurons.bias_mantissas.reshape(-1), job.samples),
        bias_exp=neurons.bias_exponent,
    )
    inputs = _synapses(job, _columns(memory.input_weights.reshape(memory.scales.shape)), _GRADED)
    encoders = _synapses(job, _columns(neurons.encoders), _GRADED, neurons.encoder_exponent)
    decoders = _synapses(job, _blocks(memory.decoders), _BINARY)
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


def _synapses(job: Job, weights: np.ndarray, message_bits: int, divided: int = 0) -> Any:
    """Build a Dense for all samples side by side; sums are divided by 2^divided, rounding down."""
    copies = np.kron(np.eye(job.samples, dtype=np.int32), 2 * weights.astype(np.int32))
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
