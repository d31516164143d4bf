"""The float network and the task in words and numbers, as fidelity.json records them."""

from __future__ import annotations

from typing import Literal

from lmu_deploy.fidelity import schema
from lmu_deploy.network import Layer, LMUNetwork, LSTMLayer
from lmu_deploy.tasks.base import Task


def describe_task(task: Task) -> schema.TaskSummary:
    """Say what a task asks."""
    kind: Literal["classification", "regression"] = (
        "classification" if task.kind == "classification" else "regression"
    )
    return schema.TaskSummary(
        name=task.name,
        kind=kind,
        inputs=task.n_in,
        outputs=task.n_out,
        steps=task.steps,
        washout=task.washout,
    )


def describe_network(network: LMUNetwork) -> schema.NetworkSummary:
    """Say what a network is made of."""
    return schema.NetworkSummary(
        inputs=network.n_in,
        outputs=network.n_out,
        parameters=network.n_parameters,
        return_sequences=network.return_sequences,
        layers=[_layer(layer) for layer in network.layers],
        provenance=dict(network.provenance),
    )


def _layer(layer: Layer) -> schema.Layer:
    if isinstance(layer, LSTMLayer):
        return schema.Layer(
            kind="lstm",
            inputs=layer.n_in,
            order=None,
            channels=None,
            theta=None,
            discretiser=None,
            feedback=["hidden to hidden"],
            units=layer.n_out,
            activation=None,
        )
    memory, hidden = layer.memory, layer.hidden
    feedback = [
        name
        for name, present in (
            ("hidden to memory", layer.hidden_encoders is not None),
            ("memory to memory", layer.memory_encoders is not None),
            ("hidden to hidden", hidden is not None and hidden.recurrent_kernel is not None),
        )
        if present
    ]
    return schema.Layer(
        kind="lmu",
        inputs=layer.n_in,
        order=memory.order,
        channels=memory.channels,
        theta=memory.theta,
        discretiser=memory.discretiser,
        feedback=feedback,
        units=0 if hidden is None else hidden.units,
        activation=None if hidden is None else hidden.activation,
    )
