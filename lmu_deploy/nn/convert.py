"""Lossless conversion between PyTorch models and networks.

A graph becomes a :class:`lmu_deploy.nn.graph.module.GraphModule`. LMU layers store weights as
LMUNetwork does (row vectors, weights on the right) and are copied;
torch.nn.LSTM and torch.nn.Linear store their weights transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import Hidden, Layer, LMULayer, LMUNetwork, LSTMLayer, Memory, Readout
from lmu_deploy.nn.config import LMUConfig, LSTMConfig, ModelConfig
from lmu_deploy.nn.graph.module import GraphModule
from lmu_deploy.nn.graph.operator import to_array
from lmu_deploy.nn.lmu import LMU
from lmu_deploy.nn.model import LSTM, SequenceModel


def to_torch(
    network: Network | LMUNetwork,
    dtype: torch.dtype | None = None,
    *,
    train_theta: bool = False,
    train_memory: bool = False,
) -> GraphModule:
    """Return a PyTorch module that computes the same as a network and can be trained further.

    Each node becomes a module with the arrays of its operator as parameters;
    ``module.to_network()`` returns the network with the weights as they are then.

    Parameters
    ----------
    network : Network or LMUNetwork
    dtype : torch.dtype, optional
        Type of the parameters; by default float64 if a weight of the network is, float32 otherwise.
    train_theta, train_memory : bool
        Train the windows of the memories, or their matrices. Matrices that were trained before
        are trained in any case.

    Returns
    -------
    module : GraphModule
        Its input has shape (batch, steps, *frame).

    Raises
    ------
    InputError
        When both a memory and its window are to be trained.
    """
    graph = network if isinstance(network, Network) else Network.from_layers(network)
    return GraphModule(graph, dtype, train_theta=train_theta, train_memory=train_memory)


def from_torch(
    model: SequenceModel, task: str | None = None, provenance: Mapping[str, str] | None = None
) -> LMUNetwork:
    """Return a trained PyTorch model as an LMUNetwork.

    Parameters
    ----------
    model : SequenceModel
    task : str, optional
        Name of the task on which it was trained.
    provenance : mapping of str to str, optional
        Origin of the network: command, seed, versions, figures.

    Returns
    -------
    network : LMUNetwork
        Network in the precision of the model.

    Raises
    ------
    InputError
        When the model is of another class, or a weight is NaN or infinite.
    """
    if not isinstance(model, SequenceModel):
        raise InputError(f"from_torch needs a SequenceModel, not {type(model).__name__}.")
    bias = model.readout.bias if model.config.readout_bias else None
    return LMUNetwork(
        layers=tuple(to_layer(layer) for layer in model.layers),
        readout=Readout(to_array(model.readout.weight.T), _optional(bias)),
        return_sequences=model.config.return_sequences,
        task=task,
        provenance=dict(provenance or {}),
    )


def to_sequence_model(network: LMUNetwork, dtype: torch.dtype | None = None) -> SequenceModel:
    """Return a SequenceModel that computes the same as `network` and can be trained further.

    Trained memory matrices stay trainable; those derived from theta stay fixed.

    Parameters
    ----------
    network : Network or LMUNetwork
    dtype : torch.dtype, optional
        Precision of the model; by default that of the kernel of the readout.

    Returns
    -------
    model : SequenceModel
    """
    config = ModelConfig(
        n_in=network.n_in,
        n_out=network.n_out,
        layers=tuple(_describe(layer) for layer in network.layers),
        return_sequences=network.return_sequences,
        readout_bias=network.readout.bias is not None,
    )
    model = SequenceModel(config).to(dtype or torch.tensor(network.readout.kernel[:0]).dtype)
    with torch.no_grad():
        _put(model.readout.weight, network.readout.kernel.T)
        _put(model.readout.bias, network.readout.bias)
        for module, layer in zip(model.layers, network.layers, strict=True):
            _fill_layer(module, layer)
    return model


def to_layer(layer: nn.Module) -> Layer:
    """Return a layer of `lmu_deploy.nn` as a layer of an LMUNetwork.

    Raises
    ------
    InputError
        When it is of another class, or a weight is NaN or infinite.
    """
    if isinstance(layer, LSTM):
        return lstm_layers(layer.core)[0]
    if not isinstance(layer, LMU):
        raise InputError(f"a layer is {type(layer).__name__}; only LMU and LSTM can be converted.")
    a_bar, b_bar = layer.memory()
    origin = "trained" if layer.memory.train_memory else layer.memory.discretizer
    memory = Memory(
        layer.order,
        layer.channels,
        layer.memory.theta,
        origin,
        to_array(a_bar),
        to_array(b_bar),
    )
    hidden = None
    if layer.memory_kernel is not None:
        hidden = Hidden(
            memory_kernel=to_array(layer.memory_kernel),
            input_kernel=_optional(layer.input_kernel),
            recurrent_kernel=_optional(layer.recurrent_kernel),
            bias=_optional(layer.bias),
            activation=layer.activation,
        )
    return LMULayer(
        input_encoders=to_array(layer.input_encoders),
        hidden_encoders=_optional(layer.hidden_encoders),
        memory_encoders=_optional(layer.memory_encoders),
        memory_bias=_optional(layer.memory_bias),
        memory=memory,
        hidden=hidden,
    )


def lstm_layers(lstm: nn.LSTM) -> list[Layer]:
    """Return the layers of a torch.nn.LSTM as layers of an LMUNetwork.

    Raises
    ------
    InputError
        When it is bidirectional or projects its outputs, or a weight is NaN or infinite.
    """
    if lstm.bidirectional:
        raise InputError("it is bidirectional; only the forward direction can run on a chip.")
    if lstm.proj_size:
        raise InputError(f"proj_size is {lstm.proj_size}; only 0 is supported.")
    layers: list[Layer] = []
    for weights in lstm.all_weights:
        kernel, recurrent_kernel, *biases = weights
        bias = biases[0] + biases[1] if biases else kernel.new_zeros(len(kernel))
        layers.append(LSTMLayer(to_array(kernel.T), to_array(recurrent_kernel.T), to_array(bias)))
    return layers


def _describe(layer: Layer) -> LMUConfig | LSTMConfig:
    if isinstance(layer, LSTMLayer):
        return LSTMConfig(units=layer.n_out)
    memory, hidden = layer.memory, layer.hidden
    trained = memory.discretizer == "trained"
    kind = "none"
    if hidden is not None:
        kind = "feedforward" if hidden.recurrent_kernel is None else "recurrent"
    return LMUConfig.model_validate(
        {
            "units": 0 if hidden is None else hidden.units,
            "order": memory.order,
            "theta": max(memory.theta, 1.0),
            "channels": memory.channels,
            "discretizer": "zoh" if trained else memory.discretizer,
            "activation": "tanh" if hidden is None else hidden.activation,
            "hidden": kind,
            "input_to_hidden": hidden is not None and hidden.input_kernel is not None,
            "hidden_to_memory": layer.hidden_encoders is not None,
            "memory_to_memory": layer.memory_encoders is not None,
            "memory_bias": layer.memory_bias is not None,
            "hidden_bias": hidden is not None and hidden.bias is not None,
            "train_memory": trained,
        }
    )


def _fill_layer(module: nn.Module, layer: Layer) -> None:
    if isinstance(module, LSTM) and isinstance(layer, LSTMLayer):
        kernel, recurrent_kernel, bias, _ = module.weights
        _put(kernel, layer.kernel.T)
        _put(recurrent_kernel, layer.recurrent_kernel.T)
        _put(bias, layer.bias)
    if isinstance(module, LMU) and isinstance(layer, LMULayer):
        _put(module.memory.a_bar, layer.memory.a_bar)
        _put(module.memory.b_bar, layer.memory.b_bar)
        for name in ("input_encoders", "hidden_encoders", "memory_encoders", "memory_bias"):
            _put(getattr(module, name), getattr(layer, name))
        for name in ("memory_kernel", "input_kernel", "recurrent_kernel", "bias"):
            _put(getattr(module, name), getattr(layer.hidden, name, None))


def _optional(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else to_array(tensor)


def _put(tensor: Tensor | None, values: np.ndarray | None) -> None:
    if tensor is not None and values is not None:
        tensor.copy_(torch.from_numpy(np.array(values)))
