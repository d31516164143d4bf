r"""The LMU layer in PyTorch: the trainable form of the equations of `lmu_deploy.core.network`.

.. math::
   u_t &= x_t E_x + h_{t-1} E_h + m_{t-1} E_m + b_u \\
   m_t[c] &= \bar A\, m_{t-1}[c] + \bar B\, u_t[c] \\
   h_t &= f(x_t W_x + h_{t-1} W_h + m_t W_m + b)

(Voelker, Kajic, Eliasmith 2019, equations 5 to 7). Vectors are rows, weights multiply from the
right, and m is flattened channel by channel. Absent weights are None. Sequences are evaluated in
one of several forms, which give the same result and differ only in speed.

Under autocast the layer computes in the type of its weights, with one exception: on processors
with AMX, large layers whose hidden units are recurrent (:mod:`lmu_deploy.nn.scans`) round the
operands of products to bfloat16. Memories are never rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_choice, check_integer
from lmu_deploy.nn.memory import LegendreMemory, StateNoise
from lmu_deploy.nn.parallel import run_parallel, takes_channels
from lmu_deploy.nn.products import ACTIVATIONS, TensorCache, has_fused, reduced_type
from lmu_deploy.nn.recurrent import advance, run_recurrent, run_stepwise
from lmu_deploy.nn.scans import run_coupled, run_driven
from lmu_deploy.nn.sequences import (
    at_end,
    check_sequences,
    is_traced,
    left_uncompiled,
    pack_like,
    unpack,
    zero_after,
)
from lmu_deploy.nn.weights import LMUWeights

INITIALIZATIONS = ("random", "memory")

FORMS = ("auto", "step", "recurrent", "parallel")

HIDDEN_KINDS = ("recurrent", "feedforward", "none")

Form = Callable[
    [LMUWeights, Tensor, Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor, Tensor]
]
"""See :func:`lmu_deploy.nn.recurrent.run_recurrent`."""

_WORTH_BLOCKS = 1e6
"""Multiplications per step that blocks must save to outweigh their overhead."""

_WORTH_DRIVING = 2e6
"""Multiplications per step above which computing the drive in each step is faster."""


class LMUState(NamedTuple):
    """State of a layer.

    Attributes
    ----------
    m : Tensor, shape (batch, channels * order)
    h : Tensor, shape (batch, units); no columns without hidden units
    """

    m: Tensor
    h: Tensor


class LMU(nn.Module):
    """A Legendre Memory Unit, for whole sequences or, with :meth:`step`, single steps.

    Parameters
    ----------
    n_in : int
        Number of input features.
    units : int
        Number of hidden units; 0 exactly when `hidden` is "none".
    order : int
        Number of states of each memory.
    theta : float
        Window length in steps, at least 1.
    channels : int
        Number of memories, each of `order` states.
    discretizer : {"zoh", "bilinear", "euler"}
    activation : {"linear", "relu", "tanh", "hard-tanh"}
    hidden : {"recurrent", "feedforward", "none"}
        Kind of hidden units; with "none" the output is the memory.
    input_to_hidden, hidden_to_memory, memory_to_memory : bool
        Whether W_x, E_h, E_m exist.
    memory_bias, hidden_bias : bool
        Whether b_u, b exist.
    train_theta, train_memory : bool
        Train the window length, or a_bar and b_bar.
    form : {"auto", "step", "recurrent", "parallel"}
        Evaluation of sequences; all forms give the same result. "auto" uses the fastest.
    batch_first : bool
        Whether sequences are (batch, steps, features) or (steps, batch, features).
    init : {"random", "memory"}
        Initialization of the weights; see :func:`init_weights`.
    device, dtype
        As in other torch modules.

    Attributes
    ----------
    noise : StateNoise or None
        Noise that is added to what hidden units, or the output, read of the memory, in evaluations
        of sequences. None by default.

    Raises
    ------
    InputError
        When a value is out of range or settings exclude each other.
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
        init: str = "random",
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
        self.init = check_choice("init", init, INITIALIZATIONS)
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
                "form 'parallel' is impossible with hidden_to_memory, which feeds the result of "
                "each step back into the memory; choose 'auto' or 'recurrent'."
            )
        self.memory = LegendreMemory(
            order, theta, discretizer, train_theta, train_memory, device=device, dtype=dtype
        )
        self.order = self.memory.order
        self.noise: StateNoise | None = None
        self._cache = TensorCache()
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
        """Initialize the weights; see :func:`init_weights`."""
        init_weights(self.named_parameters(recurse=False), self.init)

    def initial_state(self, batch: int) -> LMUState:
        """Return the zero state for `batch` sequences."""
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
            State after the previous step; zero by default.

        Returns
        -------
        output : Tensor, shape (batch, n_out)
        state : LMUState
        """
        state = self.initial_state(len(x)) if state is None else state
        state = LMUState(*advance(self.weights(), x, *state))
        return (state.m if self.hidden == "none" else state.h), state

    def weights(self, cached: bool = True) -> LMUWeights:
        """Return the weights as tensors with gradients.

        Parameters
        ----------
        cached : bool
            Whether what is computed from them may be kept for the next call.
        """
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
            self.memory.cache() if cached else None,
            self._cache if cached else None,
        )

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: LMUState | None = None,
        lengths: Tensor | None = None,
        last_only: bool = False,
    ) -> tuple[Tensor | PackedSequence, LMUState]:
        """Evaluate sequences.

        Parameters
        ----------
        x : Tensor, shape (batch, steps, n_in), or PackedSequence
            Or (steps, batch, n_in) when not `batch_first`.
        state : LMUState, optional
            State before the first step; zero by default.
        lengths : Tensor of int, shape (batch,), optional
            Lengths of the sequences. Outputs after the end are zero, and the returned state is
            that at the end.
        last_only : bool
            Return only the output of the last step of each sequence.

        Returns
        -------
        outputs : Tensor, shape (batch, steps, n_out), or (batch, n_out) with `last_only`
            In the layout of x; packed if x is packed.
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
        self,
        x: Tensor,
        state: LMUState | None,
        lengths: Tensor | None,
        last_only: bool,
        products: torch.dtype | None = None,
    ) -> tuple[Tensor, LMUState]:
        check_sequences(x, self.n_in, lengths)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            # 8 bits of a mantissa do not hold a memory: it stays in the type of the weights, and
            # so do products that are not faster in bfloat16.
            products = reduced_type(kind, self.input_encoders.dtype)
            with torch.autocast(kind, enabled=False):
                x = x.to(self.input_encoders.dtype)
                state = None if state is None else LMUState(*(s.to(x.dtype) for s in state))
                return self._run(x, state, lengths, last_only, products)
        if is_traced():
            return self._by_definition(x, state, lengths, last_only)
        return self._fast(x, state, lengths, last_only, products)

    def _by_definition(
        self, x: Tensor, state: LMUState | None, lengths: Tensor | None, last_only: bool
    ) -> tuple[Tensor, LMUState]:
        """Evaluate step by step, in operations that can be traced: none depends on a value."""
        x = zero_after(x, lengths)
        m, h = self.initial_state(x.shape[0]) if state is None else state
        y, m, h = run_stepwise(self.weights(cached=False), x, m, h, lengths, last_only)
        return (y if last_only else zero_after(y, lengths)), LMUState(m, h)

    @left_uncompiled
    def _fast(
        self,
        x: Tensor,
        state: LMUState | None,
        lengths: Tensor | None,
        last_only: bool,
        products: torch.dtype | None,
    ) -> tuple[Tensor, LMUState]:
        """Evaluate in the fastest form, which depends on sizes; a compiler leaves it as it is."""
        if not len(x):
            y = x.new_zeros((0, self.n_out) if last_only else (0, x.shape[1], self.n_out))
            return y, self.initial_state(0) if state is None else state
        if lengths is not None:
            lengths = lengths.to(device=x.device, dtype=torch.int64)
        x = zero_after(x, lengths)
        m, h = self.initial_state(len(x)) if state is None else state
        weights = replace(self.weights(), products=products)
        noise = None
        if self.noise is not None:
            noise = self.noise.draw(memory_states(weights, x, m, h), lengths)
            weights, x = with_noise(weights, x, noise)
        form = choose_form(self.form, weights, len(x))
        y, m, h = form(weights, x, m, h, lengths, last_only)
        if noise is not None and weights.memory_kernel is None:
            y = y + (at_end(noise, lengths) if last_only else noise)
        return (y if last_only else zero_after(y, lengths)), LMUState(m, h)


def memory_states(weights: LMUWeights, x: Tensor, m: Tensor, h: Tensor) -> Tensor:
    """Return the memory at every step, (batch, steps, states), without gradients."""
    with torch.no_grad():
        encoders = weights.input_encoders
        if weights.hidden_encoders is not None:
            hiddens = run_recurrent(weights, x, m, h, None, False)[0]
            before = torch.cat([h.unsqueeze(1), hiddens[:, :-1]], 1)
            x, encoders = torch.cat([x, before], 2), torch.cat([encoders, weights.hidden_encoders])
        memory = replace(
            weights, input_encoders=encoders, hidden_encoders=None, memory_kernel=None, cache=None
        )
        return run_parallel(memory, x, m, h, None, False)[0]


def with_noise(weights: LMUWeights, x: Tensor, noise: Tensor) -> tuple[LMUWeights, Tensor]:
    """Return weights and inputs with which hidden units read the memory with noise.

    The noise enters as further inputs, which the memory does not receive and whose kernel is that
    of the memory, so that every form of evaluation serves.

    Parameters
    ----------
    weights : LMUWeights
    x : Tensor, shape (batch, steps, n_in)
    noise : Tensor, shape (batch, steps, states)
    """
    kernel, encoders = weights.memory_kernel, weights.input_encoders
    if kernel is None:
        return weights, x
    own = weights.input_kernel
    if own is None:
        own = kernel.new_zeros(len(encoders), weights.units)
    unread = encoders.new_zeros(weights.states, weights.channels)
    both = replace(
        weights,
        input_encoders=torch.cat([encoders, unread]),
        input_kernel=torch.cat([own, kernel]),
        cache=None,
    )
    return both, torch.cat([x, noise], 2)


def init_weights(weights: Iterable[tuple[str, Tensor]], scheme: str) -> None:
    """Initialize weights in place.

    Parameters
    ----------
    weights : iterable of (str, Tensor)
        Names as in :class:`LMU`, and the weights.
    scheme : {"random", "memory"}
        "random": encoders of input and hidden units LeCun uniform, kernels Xavier normal, memory
        encoders and biases zero (Voelker et al. 2019, section 2.2 "Layer Design"). "memory": the
        layer starts as a delay line with a random readout: input encoders one, memory kernel
        Xavier normal, all other weights zero (the settings of the paper's psMNIST experiment).
    """
    with torch.no_grad():
        for name, weight in weights:
            random = scheme == "random" or name == "memory_kernel"
            if name == "input_encoders" and scheme == "memory":
                weight.fill_(1.0)
            elif random and name in ("input_encoders", "hidden_encoders"):
                limit = math.sqrt(3.0 / weight.shape[0])
                weight.uniform_(-limit, limit)
            elif random and name.endswith("kernel"):
                nn.init.xavier_normal_(weight)
            else:
                weight.zero_()


def choose_form(form: str, weights: LMUWeights, batch: int) -> Form:
    """Return the fastest evaluation that `form` allows.

    Parameters
    ----------
    form : {"auto", "step", "recurrent", "parallel"}
        "auto" uses the parallel form whenever the memory receives no feedback from hidden units;
        feedback of the memory into itself is linear and does not prevent it.
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
    """Return whether hidden units are recurrent and computing the drive in each step pays."""
    own = weights.recurrent_kernel
    if own is None or takes_channels(weights) or has_fused(own, weights.activation):
        return False
    return batch * weights.units * (weights.units + weights.states) > _WORTH_DRIVING
