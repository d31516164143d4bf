r"""The LMU layer in PyTorch: the equations of `lmu_deploy.core.network`, trainable.

.. math::
   u_t &= x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u \\
   m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c] \\
   h_t &= f(x_t W_x + h_{t-1} W_h + m_t W_m + b)

(Voelker, Kajic, Eliasmith 2019, equations 5 to 7), row vectors, weights on the right, m flattened
channel by channel. What a layer does not have is None.

How the weights of an LMU layer are drawn before it trains.

Which way through time a layer takes. All give the same; they differ in speed alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_choice, check_integer
from lmu_deploy.nn.coupled import run_coupled
from lmu_deploy.nn.driven import run_driven
from lmu_deploy.nn.memory import LegendreMemory
from lmu_deploy.nn.parallel import run_parallel, takes_channels
from lmu_deploy.nn.products import ACTIVATIONS, Kept, has_fused
from lmu_deploy.nn.recurrent import advance, run_recurrent, run_stepwise
from lmu_deploy.nn.sequences import blank_after, check_sequences, pack_like, unpack
from lmu_deploy.nn.weights import LMUWeights

STARTS = ("random", "memory")


def draw(weights: Iterable[tuple[str, Tensor]], start: str) -> None:
    """Draw weights anew, in place.

    Parameters
    ----------
    weights : iterable of (str, Tensor)
        Names as in `lmu_deploy.nn.lmu.LMU`, and what they name.
    start : {"random", "memory"}
        "random": encoders of input and hidden units LeCun uniform, kernels Xavier normal, memory
        encoders and biases zero (Voelker et al. 2019, section 2.2 "Layer Design"). "memory": the
        layer starts as a plain delay line read out at random: input encoders one, memory kernel
        Xavier normal, all else zero (the settings of the paper's psMNIST experiment).
    """
    with torch.no_grad():
        for name, weight in weights:
            random = start == "random" or name == "memory_kernel"
            if name == "input_encoders" and start == "memory":
                weight.fill_(1.0)
            elif random and name in ("input_encoders", "hidden_encoders"):
                limit = math.sqrt(3.0 / weight.shape[0])
                weight.uniform_(-limit, limit)
            elif random and name.endswith("kernel"):
                nn.init.xavier_normal_(weight)
            else:
                weight.zero_()


FORMS = ("auto", "step", "recurrent", "parallel")
Form = Callable[
    [LMUWeights, Tensor, Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor, Tensor]
]
"""See :func:`lmu_deploy.nn.recurrent.run_recurrent`."""

_WORTH_BLOCKS = 1e6
"""Products that blocks must save at a step to pay for their calls."""
_WORTH_DRIVING = 2e6
"""Products of a step from which on the drive is better made in that step than beforehand."""


def choose_form(form: str, weights: LMUWeights, batch: int) -> Form:
    """Choose the fastest way that `form` allows.

    Parameters
    ----------
    form : {"auto", "step", "recurrent", "parallel"}
        "auto" takes the parallel form whenever nothing but the input enters the memory, or
        nothing but the memory itself, which is linear.
    weights : LMUWeights
    batch : int
    """
    if form == "step":
        return run_stepwise
    if weights.hidden_encoders is None:
        if form == "recurrent":
            return run_recurrent
        return run_driven if _is_driven(weights, batch) else run_parallel
    saved = batch * weights.states * (weights.units + weights.states)
    return run_coupled if saved > _WORTH_BLOCKS else run_recurrent


def _is_driven(weights: LMUWeights, batch: int) -> bool:
    """Whether hidden units recur, and a step's products are large enough to hold their drive."""
    own = weights.recurrent_kernel
    if own is None or takes_channels(weights) or has_fused(own, weights.activation):
        return False
    return batch * weights.units * (weights.units + weights.states) > _WORTH_DRIVING


HIDDEN_KINDS = ("recurrent", "feedforward", "none")


class LMUState(NamedTuple):
    """What a layer carries from step to step.

    Attributes
    ----------
    m : Tensor, shape (batch, channels * order)
    h : Tensor, shape (batch, units); no columns without hidden units
    """

    m: Tensor
    h: Tensor


class LMU(nn.Module):
    """A Legendre Memory Unit over whole sequences, or step by step with :meth:`step`.

    Parameters
    ----------
    n_in : int
        Input features.
    units : int
        Hidden units; 0 exactly when `hidden` is "none".
    order : int
        States of each memory.
    theta : float
        Window length in steps, at least 1.
    channels : int
        Number of memories, each of `order` states.
    discretizer : {"zoh", "bilinear", "euler"}
    activation : {"linear", "relu", "tanh", "hard-tanh"}
    hidden : {"recurrent", "feedforward", "none"}
        Without hidden units the output is the memory itself.
    input_to_hidden, hidden_to_memory, memory_to_memory : bool
        Whether W_x, E_h, E_m exist.
    memory_bias, hidden_bias : bool
        Whether b_u, b exist.
    train_theta, train_memory : bool
        Learn the window length, or a_bar and b_bar themselves.
    form : {"auto", "step", "recurrent", "parallel"}
        How time is gone through; all give the same. "auto" takes the fastest.
    batch_first : bool
        Sequences are (batch, steps, features), or else (steps, batch, features).
    start : {"random", "memory"}
        How weights are drawn; see :func:`lmu_deploy.nn.lmu.draw`.
    device, dtype
        As everywhere in torch.

    Raises
    ------
    InputError
        On values out of range or settings that exclude each other.
    """

    input_encoders: Tensor
    hidden_encoders: Tensor | None
    memory_encoders: Tensor | None
    memory_bias: Tensor | None
    memory_kernel: Tensor | None
    input_kernel: Tensor | None
    recurrent_kernel: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        n_in: int,
        units: int,
        order: int,
        theta: float,
        channels: int = 1,
        *,
        discretizer: str = "zoh",
        activation: str = "tanh",
        hidden: str = "recurrent",
        input_to_hidden: bool = True,
        hidden_to_memory: bool = False,
        memory_to_memory: bool = False,
        memory_bias: bool = False,
        hidden_bias: bool = True,
        train_theta: bool = False,
        train_memory: bool = False,
        form: str = "auto",
        batch_first: bool = True,
        start: str = "random",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.n_in = check_integer("n_in", n_in, 1, 65_536)
        self.channels = check_integer("channels", channels, 1, 65_536)
        self.hidden = check_choice("hidden", hidden, HIDDEN_KINDS)
        self.units = check_integer("units", units, 0, 65_536)
        self.activation = check_choice("activation", activation, ACTIVATIONS)
        self.form = check_choice("form", form, FORMS)
        self.start = check_choice("start", start, STARTS)
        self.batch_first = batch_first
        if (units == 0) != (hidden == "none"):
            raise InputError(
                f"units is {units} and hidden is {hidden!r}; "
                "give units = 0 exactly when hidden is 'none'."
            )
        if hidden == "none" and hidden_to_memory:
            raise InputError("hidden_to_memory needs hidden units, and hidden is 'none'.")
        if form == "parallel" and hidden_to_memory:
            raise InputError(
                "form 'parallel' is impossible with hidden_to_memory, which feeds each step's "
                "result back into the memory; choose 'auto' or 'recurrent'."
            )
        self.memory = LegendreMemory(
            order, theta, discretizer, train_theta, train_memory, device=device, dtype=dtype
        )
        self.order = self.memory.order
        self._prepared = Kept()
        states, has = channels * order, hidden != "none"
        for name, shape, wanted in (
            ("input_encoders", (n_in, channels), True),
            ("hidden_encoders", (units, channels), hidden_to_memory),
            ("memory_encoders", (states, channels), memory_to_memory),
            ("memory_bias", (channels,), memory_bias),
            ("memory_kernel", (states, units), has),
            ("input_kernel", (n_in, units), has and input_to_hidden),
            ("recurrent_kernel", (units, units), hidden == "recurrent"),
            ("bias", (units,), has and hidden_bias),
        ):
            weight = torch.empty(shape, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, None if weight is None else nn.Parameter(weight))
        self.reset_parameters()

    @property
    def n_out(self) -> int:
        """Number of output features."""
        return self.channels * self.order if self.hidden == "none" else self.units

    def reset_parameters(self) -> None:
        """Draw the weights anew; see :func:`lmu_deploy.nn.lmu.draw`."""
        draw(self.named_parameters(recurse=False), self.start)

    def initial_state(self, batch: int) -> LMUState:
        """Give the state of rest, all zero, for `batch` sequences."""
        like = self.input_encoders
        return LMUState(
            like.new_zeros(batch, self.channels * self.order), like.new_zeros(batch, self.units)
        )

    def step(self, x: Tensor, state: LMUState | None = None) -> tuple[Tensor, LMUState]:
        """Advance by one step.

        Parameters
        ----------
        x : Tensor, shape (batch, n_in)
        state : LMUState, optional
            Of the step before; rest when absent.

        Returns
        -------
        output : Tensor, shape (batch, n_out)
        state : LMUState
        """
        state = self.initial_state(len(x)) if state is None else state
        state = LMUState(*advance(self.weights(), x, *state))
        return (state.m if self.hidden == "none" else state.h), state

    def weights(self) -> LMUWeights:
        """Give what the layer computes with, as tensors that gradients flow through."""
        a_bar, b_bar = self.memory()
        return LMUWeights(
            self.channels,
            self.activation,
            a_bar,
            b_bar,
            self.input_encoders,
            self.hidden_encoders,
            self.memory_encoders,
            self.memory_bias,
            self.memory_kernel,
            self.input_kernel,
            self.recurrent_kernel,
            self.bias,
            self.memory.kept(),
            self._prepared,
        )

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: LMUState | None = None,
        lengths: Tensor | None = None,
        last_only: bool = False,
    ) -> tuple[Tensor | PackedSequence, LMUState]:
        """Go through whole sequences.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, n_in), or PackedSequence
            Or (steps, batch, n_in) when not `batch_first`.
        state : LMUState, optional
            State before the first step; rest when absent.
        lengths : Tensor of int, shape (batch,), optional
            Sequences end there: outputs after the end are zero, and the state is the one at the
            end.
        last_only : bool
            Give only the output of the last step of each sequence.

        Returns
        -------
        outputs : Tensor, shape (batch, steps, n_out), or (batch, n_out) with `last_only`
            Arranged as x is; packed when x is packed.
        state : LMUState
            After the last step of each sequence.

        Raises
        ------
        InputError
            When shapes do not fit or a length is outside 1 to steps.
        """
        if isinstance(x, PackedSequence):
            inputs, ends = unpack(x)
            outputs, state = self._run(inputs, state, ends, last_only)
            return (outputs if last_only else pack_like(outputs, x)), state
        inputs = x if self.batch_first else x.transpose(0, 1)
        outputs, state = self._run(inputs, state, lengths, last_only)
        return (outputs if self.batch_first or last_only else outputs.transpose(0, 1)), state

    def _run(
        self, x: Tensor, state: LMUState | None, lengths: Tensor | None, last_only: bool
    ) -> tuple[Tensor, LMUState]:
        check_sequences(x, self.n_in, lengths)
        if lengths is not None:
            lengths = lengths.to(device=x.device, dtype=torch.int64)
        x = blank_after(x, lengths)
        m, h = self.initial_state(len(x)) if state is None else state
        weights = self.weights()
        form = choose_form(self.form, weights, len(x))
        y, m, h = form(weights, x, m, h, lengths, last_only)
        return (y if last_only else blank_after(y, lengths)), LMUState(m, h)
