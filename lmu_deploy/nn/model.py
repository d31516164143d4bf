"""Trainable networks: LMU and LSTM layers followed by a linear readout.

:class:`LSTM` wraps torch.nn.LSTM in the interface of the LMU layer, for comparison and for hybrid
networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lmu_deploy.core.errors import InputError
from lmu_deploy.nn.config import LMUConfig, LSTMConfig, ModelConfig
from lmu_deploy.nn.lmu import LMU, LMUState
from lmu_deploy.nn.sequences import at_end, check_sequences


class LSTMState(NamedTuple):
    """State of an LSTM layer.

    Attributes
    ----------
    h, c : Tensor, shape (batch, units)
    """

    h: Tensor
    c: Tensor


class LSTM(nn.Module):
    """A long short-term memory layer (Hochreiter, Schmidhuber 1997).

    Input weights are initialized Xavier uniform, recurrent weights orthogonal, biases zero except
    those of the forget gate, which are one (Jozefowicz et al. 2015; as in Keras).

    Parameters
    ----------
    n_in, units : int
    device, dtype
        As in other torch modules.
    """

    def __init__(
        self,
        n_in: int,
        units: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.n_in = n_in
        self.units = units
        self.core = nn.LSTM(n_in, units, batch_first=True, device=device, dtype=dtype)
        # torch.nn.LSTM has two redundant biases; only one of them is trained here.
        self.weights[3].requires_grad_(False)
        self.reset_parameters()

    @property
    def n_out(self) -> int:
        """Number of output features."""
        return self.units

    @property
    def weights(self) -> list[Tensor]:
        """Input weights (4 * units, n_in), recurrent weights (4 * units, units), two biases."""
        return list(self.core.parameters())

    def reset_parameters(self) -> None:
        """Initialize the weights."""
        input_weights, recurrent_weights, bias, idle_bias = self.weights
        with torch.no_grad():
            for gate in input_weights.chunk(4):
                nn.init.xavier_uniform_(gate)
            for gate in recurrent_weights.chunk(4):
                nn.init.orthogonal_(gate)
            idle_bias.zero_()
            bias.zero_()
            bias[self.units : 2 * self.units] = 1.0

    def forward(
        self,
        x: Tensor,
        state: LSTMState | None = None,
        lengths: Tensor | None = None,
        last_only: bool = False,
    ) -> tuple[Tensor, LSTMState]:
        """Evaluate sequences; arguments and results are those of :meth:`LMU.forward`."""
        check_sequences(x, self.n_in, lengths)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # as an LMU, in the type of the weights
                x = x.to(self.weights[0].dtype)
                state = None if state is None else LSTMState(*(s.to(x.dtype) for s in state))
                return self.forward(x, state, lengths, last_only)
        before = None if state is None else (state.h[None], state.c[None])
        if lengths is None:
            y, (h, c) = self.core(x, before)
        else:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, (h, c) = self.core(packed, before)
            y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        return (at_end(y, lengths) if last_only else y), LSTMState(h[0], c[0])

    def step(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Advance by one step: x (batch, n_in) to the output (batch, units) and the state."""
        y, state = self.forward(x[:, None], state)
        return y[:, 0], state


States = list[LMUState | LSTMState]


class SequenceModel(nn.Module):
    """Sequence of layers with a readout, ``y_t = h_t W_y + b_y``.

    Parameters
    ----------
    config : ModelConfig

    Attributes
    ----------
    layers : ModuleList of LMU or LSTM
    readout : Linear
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()
        n_in = config.n_in
        for layer in config.layers:
            self.layers.append(_make_layer(n_in, layer))
            n_in = layer.n_out
        self.readout = nn.Linear(n_in, config.n_out, bias=config.readout_bias)
        nn.init.xavier_uniform_(self.readout.weight)
        if config.readout_bias:
            nn.init.zeros_(self.readout.bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the outputs of the network.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, n_in)
        lengths : Tensor of int, shape (batch,), optional
            Lengths of the sequences.

        Returns
        -------
        y : Tensor, shape (batch, steps, n_out), or (batch, n_out) without `return_sequences`
            Readout at every step, or at the end of each sequence.
        """
        return self.run(x, lengths=lengths)[0]

    def run(
        self, x: Tensor, states: States | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Evaluate sequences, or the next chunk of sequences, and return the states too.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, n_in)
        states : list of LMUState or LSTMState, optional
            States of all layers as returned by a previous call; zero by default.
        lengths : Tensor of int, shape (batch,), optional

        Returns
        -------
        y : Tensor
            As returned by :meth:`forward`.
        states : list of LMUState or LSTMState
        """
        if states is not None and len(states) != len(self.layers):
            raise InputError(
                f"{len(states)} states are given and the network has {len(self.layers)} layers; "
                "give one for each layer."
            )
        signal, after = x, []
        for number, layer in enumerate(self.layers):
            before = None if states is None else states[number]
            last = number == len(self.layers) - 1 and not self.config.return_sequences
            signal, state = layer(signal, before, lengths, last_only=last)
            after.append(state)
        return self.readout(signal), after

    def step(self, x: Tensor, states: States | None = None) -> tuple[Tensor, States]:
        """Advance by one step: x (batch, n_in) to y (batch, n_out), and the states after it."""
        signal, after = x, []
        for number, layer in enumerate(self.layers):
            advance: Any = layer.step
            signal, state = advance(signal, None if states is None else states[number])
            after.append(state)
        return self.readout(signal), after


def _make_layer(n_in: int, config: LMUConfig | LSTMConfig) -> LMU | LSTM:
    if isinstance(config, LSTMConfig):
        return LSTM(n_in, config.units)
    return LMU(n_in, **config.model_dump(exclude={"kind"}))
