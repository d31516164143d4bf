"""A trainable network: LMU and LSTM layers one after the other, then a linear readout."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lmu_deploy.errors import InputError
from lmu_deploy.nn.config import LMUConfig, LSTMConfig, ModelConfig
from lmu_deploy.nn.lmu import LMU, LMUState
from lmu_deploy.nn.lstm import LSTM, LSTMState

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
