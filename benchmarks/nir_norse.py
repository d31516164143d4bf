"""Run one NIR file on Norse: the part of `nir_agreement.py` that has an environment of its own.

    python benchmarks/nir_norse.py GRAPH.nir INPUTS.npy OUTPUTS.npz DT

Needs norse, nirtorch, nir and h5py; nothing of lmu_deploy. Norse's own importer makes every module
but one: it has none for NIR's leaky integrator (LI) in version 1.1.0, and gets Norse's cell of the
same equation, `LIBoxCell`. NIRTorch executes the graph as it does for Norse.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version

import nir
import nirtorch
import numpy as np
import torch
from norse.torch.module.leaky_integrator_box import LIBoxCell, LIBoxParameters
from norse.torch.utils.import_nir import _import_norse_module


def module(node: nir.NIRNode, dt: float) -> torch.nn.Module:
    """Return Norse's module for a node."""
    if not isinstance(node, nir.LI):
        return _import_norse_module(node, dt=dt)
    if not np.allclose(node.r, 1.0):
        raise ValueError("Norse's leaky integrator has no resistance")
    parameters = LIBoxParameters(
        tau_mem_inv=1.0 / torch.from_numpy(node.tau).float(),
        v_leak=torch.from_numpy(node.v_leak).float(),
    )
    return LIBoxCell(parameters, dt=dt)


def run(graph: nir.NIRGraph, inputs: np.ndarray, dt: float) -> dict[str, np.ndarray]:
    """Return what each Output, and each population of LIF neurons, gave at every step."""
    watched = list(graph.outputs)
    watched += [name for name, node in graph.nodes.items() if isinstance(node, nir.LIF)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = nirtorch.load(graph, lambda node: module(node, dt))
    found: dict[str, list[np.ndarray]] = {name: [] for name in watched}
    state = None
    with torch.no_grad():
        for x in torch.from_numpy(inputs).float():
            _, state = network(x, state)
            for name in watched:
                found[name].append(state.cache[name].numpy().copy())
    return {name: np.array(values) for name, values in found.items()}


def main(arguments: list[str]) -> None:
    """Read, run, write; the versions go to standard output."""
    graph, inputs, outputs, dt = arguments
    torch.set_num_threads(1)
    np.savez(outputs, **run(nir.read(graph), np.load(inputs), float(dt)))
    print(json.dumps({name: version(name) for name in ("norse", "nirtorch", "nir", "torch")}))


if __name__ == "__main__":
    main(sys.argv[1:])
