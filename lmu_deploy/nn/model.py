"""A trainable network: LMU and LSTM layers one after the other, then a linear readout.

torch's LSTM behind the same interface as the LMU layer, for comparison and hybrid networks.
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
    """What the layer carries from step to step.

    Attributes
    ----------
    h, c : Tensor, shape (batch, units)
    """

    h: Tensor
    c: Tensor


class LSTM(nn.Module):
    """A long short-term memory layer (Hochreiter, Schmidhuber 1997).

    Input weights start Xavier uniform, recurrent ones orthogonal, biases zero but the forget
    gate's, which start at one (Jozefowicz et al. 2015; Keras does the same).

    Parameters
    ----------
    n_in, units : int
    device, dtype
        As everywhere in torch.
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
        # torch adds two biases that do the same; only one of them is trained here
        self.weights[3].requires_grad_(False)
        self.reset_parameters()

    @property
    def n_out(self) -> int:
        """Number of output features."""
        return self.units

    @property
    def weights(self) -> list[Tensor]:
        """Input weights (4 * units, n_in), recurrent ones (4 * units, units), two biases."""
        return list(self.core.parameters())

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
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
        """Go through whole sequences; arguments and results as in :meth:`LMU.forward`."""
        check_sequences(x, self.n_in, lengths)
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
    """Layers and a readout, ``y_t = h_t W_y + b_y``.

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
        """Give the network's answers.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, n_in)
        lengths : Tensor of int, shape (batch,), optional
            Where each sequence ends.

        Returns
        -------
        y : Tensor, shape (batch, steps, n_out), or (batch, n_out) without `return_sequences`
            Without it, the readout at the end of each sequence.
        """
        return self.run(x, lengths=lengths)[0]

    def run(
        self, x: Tensor, states: States | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, States]:
        """Go through sequences, or through the next chunk of them, and give the states too.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, n_in)
        states : list of LMUState or LSTMState, optional
            One for each layer, as an earlier call gave them; rest when absent.
        lengths : Tensor of int, shape (batch,), optional

        Returns
        -------
        y : Tensor
            As :meth:`forward` gives it.
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
