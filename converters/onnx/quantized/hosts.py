"""Nodes on the host as float64 operators within an integer model.

They are the operators of :mod:`converters.onnx.models` in float64. ONNX Runtime sums products and
evaluates tanh in another order or form than NumPy, so their last bits can differ from those of
:mod:`targets.host`; a message then differs only where its real value is that close to the midpoint
between two messages.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from converters.onnx.doubles import scaled
from converters.onnx.graph import Dimension
from converters.onnx.models import add_sequence, add_step
from converters.onnx.quantized.arithmetic import Numbers
from lmu_deploy.core.integer.network import HostNodes
from lmu_deploy.core.integer.parts import Format
from lmu_deploy.core.integer.populations import Input


def doubled(numbers: Numbers, name: str, messages: str, form: Format) -> str:
    """Add the real values of messages, float64."""
    real = numbers.cast(messages, TensorProto.DOUBLE, f"{name}/double")
    return scaled(numbers.graph, "Mul", real, form.scale, numbers.names.take(f"{name}/real"))


def mapped(numbers: Numbers, name: str, real: str, matrix: np.ndarray | None) -> str:
    """Add ``matrix @ real``; None means the identity."""
    if matrix is None:
        return real
    stored = numbers.constant(f"{name}/matrix", np.ascontiguousarray(matrix.T, dtype=np.float64))
    return numbers.add("MatMul", [real, stored], f"{name}/mapped")


def in_channel_units(numbers: Numbers, name: str, real: str, entry: Input) -> str:
    """Add ``gain * real + offset`` of float64, as :meth:`Input.scaled` computes it."""
    for op, values in (("Mul", entry.gain), ("Add", entry.offset)):
        if values is not None:
            stored = numbers.constant(f"{name}/{op}", values)
            real = numbers.add(op, [real, stored], f"{name}/{op}/result")
    return real


def encoded(numbers: Numbers, name: str, real: str, form: Format) -> str:
    """Add the messages ``sat(rint(real / scale))`` of float64; Round takes ties to even."""
    at = numbers.names.take(f"{name}/exact")
    exact = scaled(numbers.graph, "Div", real, form.scale, at)
    whole = numbers.add("Round", [exact], f"{name}/whole")
    limits = [numbers.constant(f"limit/{v}", np.array(float(v))) for v in (-form.limit, form.limit)]
    limited = numbers.add("Clip", [whole, *limits], f"{name}/limited")
    return numbers.cast(limited, numbers.message_type(form), f"{name}/messages")


def host_frames(numbers: Numbers, host: HostNodes, x: str) -> str:
    """Add the frames of nodes on the host, float64 with time first, from those that they read."""
    graph, name, network = numbers.graph, str(host.place), host.network
    by_batch = numbers.add("Transpose", [x], f"{name}/by_batch", perm=[1, 0, 2])
    if len(network.frame) > 1:
        axes = numbers.whole(0, 0, *network.frame)
        by_batch = numbers.add("Reshape", [by_batch, axes], f"{name}/frames")
    inner = graph.with_weights(graph.weights.of_another(network, "float64"))
    found = add_sequence(inner, network, by_batch)
    shape = network.shapes[network.output]
    axes = numbers.whole(0, *([0] if shape.sequence else [1]), shape.size)
    found = numbers.add("Reshape", [found, axes], f"{name}/flat")
    return numbers.add("Transpose", [found], f"{name}/by_time", perm=[1, 0, 2])


def host_step(
    numbers: Numbers, host: HostNodes, x: str, due: str | None
) -> tuple[str, dict[str, list[Dimension]]]:
    """Add one step of nodes on the host, float64, from the frame that they read.

    Returns
    -------
    frame : str
    states : dict of str to list
        Axes of the states after the step; see :func:`converters.onnx.models.add_step`.
    """
    graph, name, network = numbers.graph, str(host.place), host.network
    if len(network.frame) > 1:
        x = numbers.add("Reshape", [x, numbers.whole(0, *network.frame)], f"{name}/frame")
    inner = graph.with_weights(graph.weights.of_another(network, "float64"))
    found, _, states = add_step(inner, network, x, due)
    return numbers.add("Reshape", [found, numbers.whole(0, host.size)], f"{name}/flat"), states
