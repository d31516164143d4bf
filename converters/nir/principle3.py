r"""A float memory as leaky integrators with recurrent weights, and back.

In: a :class:`lmu_deploy.network.Memory` and how the simulator steps. Out: the nodes of NIR that do
the same at that step, by the discrete Principle 3 of the Neural Engineering Framework (Voelker,
Eliasmith 2018, "Improving spiking dynamical networks", section 3):

.. math:: A' = (\bar A - a I) / (1 - a), \qquad B' = \bar B / (1 - a)

so that :math:`m \leftarrow a m + (1 - a)(A' m + B' u) = \bar A m + \bar B u`. Channels are blocks
on the diagonal, because a NIR node takes one vector.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from converters.contained.limits import ARRAY_BYTES
from converters.nir.stepping import Stepping
from converters.spiking.principle3 import behind_synapse
from lmu_deploy.errors import InputError
from lmu_deploy.network import Memory


def check_size(name: str, rows: int, columns: int, itemsize: int) -> None:
    """Refuse a dense matrix that no file we read may hold."""
    if rows * columns * itemsize > ARRAY_BYTES // 2:
        raise InputError(
            f"{name} would be a dense matrix of {rows} x {columns}, more than the "
            f"{ARRAY_BYTES // 2} bytes that a NIR file may give to one; export a network with "
            "fewer states, or as onnx."
        )


def leaky_integrators(states: int, tau: float) -> nir.LI:
    """`states` leaky integrators of time constant `tau` (seconds) that start and rest at zero."""
    return nir.LI(tau=np.full(states, tau), r=np.ones(states), v_leak=np.zeros(states))


def blocks(block: np.ndarray, copies: int) -> np.ndarray:
    """Put copies of a matrix on the diagonal of a larger one."""
    rows, columns = block.shape
    whole = np.zeros((copies, rows, copies, columns), dtype=block.dtype)
    for number in range(copies):
        whole[number, :, number] = block
    return whole.reshape(copies * rows, copies * columns)


def memory_nodes(name: str, memory: Memory, stepping: Stepping) -> dict[str, nir.NIRNode]:
    """Give the nodes of a memory by name: NAME, NAME_input and NAME_recurrent.

    The first carries in its metadata what the memory is, and, where rounding keeps the weights
    from giving the memory's own matrices back to the last bit, those matrices too.
    """
    kind = np.result_type(memory.a_bar.dtype, np.float32)
    check_size(f"{name}_recurrent", memory.size, memory.size, kind.itemsize)
    recurrent, into = _encode(memory.a_bar, memory.b_bar, stepping)
    node = leaky_integrators(memory.size, stepping.tau)
    node.metadata = _describe(memory, stepping)
    found: dict[str, nir.NIRNode] = {
        f"{name}_input": nir.Linear(blocks(into[:, None], memory.channels)),
        name: node,
        f"{name}_recurrent": nir.Linear(blocks(recurrent, memory.channels)),
    }
    a_bar, b_bar = _decode(recurrent, into, stepping)
    exact = np.array_equal(a_bar.astype(memory.a_bar.dtype), memory.a_bar)
    if not exact or not np.array_equal(b_bar.astype(memory.b_bar.dtype), memory.b_bar):
        node.metadata |= {"a_bar": np.array(memory.a_bar), "b_bar": np.array(memory.b_bar)}
    return found


def memory_matrices(
    name: str, nodes: dict[str, Any], order: int, stepping: Stepping
) -> tuple[np.ndarray, np.ndarray]:
    """Read a_bar, shape (order, order), and b_bar, shape (order,), from the nodes of a memory.

    The matrices in the metadata count only as long as they are what the weights say.
    """
    recurrent = np.asarray(nodes[f"{name}_recurrent"].weight)[:order, :order]
    into = np.asarray(nodes[f"{name}_input"].weight)[:order, 0]
    kept = nodes[name].metadata
    if "a_bar" in kept and "b_bar" in kept:
        a_bar, b_bar = np.asarray(kept["a_bar"]), np.asarray(kept["b_bar"])
        if a_bar.shape == recurrent.shape and b_bar.shape == into.shape:
            again = _encode(a_bar, b_bar, stepping)
            if np.array_equal(again[0], recurrent) and np.array_equal(again[1], into):
                return a_bar, b_bar
    return _decode(recurrent, into, stepping)


def _encode(
    a_bar: np.ndarray, b_bar: np.ndarray, stepping: Stepping
) -> tuple[np.ndarray, np.ndarray]:
    primes = behind_synapse(a_bar.astype(np.float64), b_bar.astype(np.float64), stepping.decay)
    a_prime, b_prime = (
        prime.astype(np.result_type(bar.dtype, np.float32))
        for prime, bar in zip(primes, (a_bar, b_bar), strict=True)
    )
    return a_prime, b_prime


def _decode(
    recurrent: np.ndarray, into: np.ndarray, stepping: Stepping
) -> tuple[np.ndarray, np.ndarray]:
    taken = 1.0 - stepping.decay
    kept = stepping.decay * np.eye(len(into))
    return kept + taken * recurrent.astype(np.float64), taken * into.astype(np.float64)


def _describe(memory: Memory, stepping: Stepping) -> dict[str, Any]:
    return {
        "order": memory.order,
        "channels": memory.channels,
        "theta": memory.theta * stepping.dt,
        "discretiser": memory.discretiser,
        "dt": stepping.dt,
        "integrator": stepping.integrator,
    }
