"""torch's LSTM behind the same interface as the LMU layer, for comparison and hybrid networks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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
