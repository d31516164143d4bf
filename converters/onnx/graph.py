"""One ONNX graph while it is written: nodes with names, and a model made of it at the end.

The caller names every tensor, and a node takes the name of what it computes, so that a viewer or
an error message of a runtime shows ``layers.0.u`` rather than a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from converters.onnx.weights import Weights

OPSET = 17
IR_VERSION = 8
"""Read by ONNX Runtime from 1.12 on."""

Dimension = int | str


class Graph:
    """Nodes, inputs and outputs of a graph, or of the body of a Scan.

    Parameters
    ----------
    name : str
    weights : Weights
        The initializers, which a body shares with the graph around it.
    scope : str
        Set before every name that the graph makes: a body's names must not be those of the graph
        around it.
    """

    def __init__(self, name: str, weights: Weights, scope: str = "") -> None:
        self.name = name
        self.weights = weights
        self._scope = scope
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output and give the output's name."""
        return self.nodes(op, inputs, [output], **attributes)[0]

    def nodes(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and give their names."""
        names = [self._scope + output for output in outputs]
        self._nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def input(self, name: str, shape: Sequence[Dimension], element: int = TensorProto.FLOAT) -> str:
        """Declare an input; a dimension is a size, or the name of one that varies."""
        name = self._scope + name
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def output(
        self, tensor: str, shape: Sequence[Dimension], element: int = TensorProto.FLOAT
    ) -> None:
        """Declare a tensor of the graph as an output."""
        self._outputs.append(helper.make_tensor_value_info(tensor, element, shape))

    def affine(self, x: str, kernel: str, bias: str | None, output: str) -> str:
        """Compute ``x @ kernel + bias`` for x of any rank; no bias is 0."""
        if bias is None:
            return self.node("MatMul", [x, kernel], output)
        return self.node("Add", [self.node("MatMul", [x, kernel], f"{output}.sum"), bias], output)

    def total(self, terms: Sequence[str], output: str) -> str:
        """Add up one or more tensors."""
        result = terms[0]
        for number, term in enumerate(terms[1:], start=1):
            last = number == len(terms) - 1
            result = self.node("Add", [result, term], output if last else f"{output}.{number}")
        return result

    def body(self) -> onnx.GraphProto:
        """Give the graph as the body of a Scan, which sees the initializers of the model."""
        return helper.make_graph(self._nodes, self.name, self._inputs, self._outputs)

    def model(
        self, metadata: Mapping[str, str], opset: int = OPSET, ir_version: int = IR_VERSION
    ) -> onnx.ModelProto:
        """Give the graph as a model with its initializers, inferred shapes and metadata."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self.weights.tensors()
        )
        model = helper.make_model(
            graph,
            producer_name="lmu_deploy",
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
        )
        helper.set_model_props(model, dict(metadata))
        return onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
