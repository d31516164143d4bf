"""Activation functions in float64 of operators that ONNX Runtime has in float64.

Its CPU provider has no float64 kernel of HardSigmoid, Softsign, Softplus, Elu and Erf, and the
attributes of an operator, such as the slope of LeakyRelu, are float32. Such functions are written
here in other operators, as :mod:`lmu_deploy.core.graph.pointwise` writes them; sigmoid is written
with tanh, as there. Erf has no such form.

Its optimizer moves a factor that is a scalar into a product of matrices before or behind it, as an
attribute, and so as float32. :func:`scaled` keeps it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmu_deploy.core.errors import InputError

if TYPE_CHECKING:
    from converters.onnx.graph import Graph

MISSING = frozenset({"AveragePool", "Conv", "Elu", "Erf", "HardSigmoid", "Softplus", "Softsign"})
"""Operators without a float64 kernel."""
WRITTEN = frozenset(
    {
        "sigmoid", "silu", "hard-sigmoid", "hard-sigmoid-keras2", "softsign", "softplus", "elu",
        "leaky-relu",
    }
)  # fmt: skip
"""Functions that are written here."""


def check_kernel(op: str, output: str) -> None:
    """Raise InputError when ONNX Runtime has no float64 kernel of an operator."""
    if op in MISSING:
        raise InputError(
            f"{output} is computed on the host, and ONNX Runtime has no {op} in float64; "
            "run the network on target onnxruntime, where the host computes it."
        )


def scaled(graph: Graph, op: str, x: str, value: float, output: str) -> str:
    """Add a product with a scalar, or a quotient, that no optimizer moves: between two Max."""
    names = graph.weights.names
    number = graph.weights.constant(f"factor.{value!r}", np.array(value))
    alone = graph.node("Max", [x], names.take(f"{output}.alone"))
    product = graph.node(op, [alone, number], names.take(f"{output}.exact"))
    return graph.node("Max", [product], output)


def activation(graph: Graph, kind: str, z: str, output: str, slope: float) -> str:
    """Add one of the functions that are written here."""

    def add(op: str, inputs: Sequence[str], part: str) -> str:
        return graph.node(op, inputs, graph.weights.names.take(f"{output}.{part}"))

    number = graph.number
    if kind in ("sigmoid", "silu"):
        inner = add("Tanh", [add("Mul", [z, number(0.5)], "half")], "tanh")
        gate = [add("Add", [inner, number(1.0)], "raised"), number(0.5)]
        if kind == "sigmoid":
            return graph.node("Mul", gate, output)
        return graph.node("Mul", [z, add("Mul", gate, "gate")], output)
    if kind in ("hard-sigmoid", "hard-sigmoid-keras2"):
        keras2 = kind.endswith("keras2")
        op, by = ("Mul", 0.2) if keras2 else ("Div", 6.0)
        inner = scaled(graph, op, z, by, graph.weights.names.take(f"{output}.scaled"))
        line = add("Add", [inner, number(0.5)], "line")
        return graph.node("Clip", [line, number(0.0), number(1.0)], output)
    if kind == "softsign":
        size = add("Add", [add("Abs", [z], "size"), number(1.0)], "divisor")
        return graph.node("Div", [z, size], output)
    if kind == "softplus":
        small = add("Exp", [add("Neg", [add("Abs", [z], "size")], "negative")], "exponential")
        rest = add("Log", [add("Add", [small, number(1.0)], "sum")], "logarithm")
        return graph.node("Add", [add("Max", [z, number(0.0)], "positive"), rest], output)
    below = z
    if kind == "elu":
        grown = add("Exp", [add("Min", [z, number(0.0)], "negative")], "exponential")
        below = add("Sub", [grown, number(1.0)], "change")
    below = scaled(graph, "Mul", below, slope, graph.weights.names.take(f"{output}.below"))
    is_below = add("Less", [z, number(0.0)], "is_below")
    return graph.node("Where", [is_below, below, z], output)
