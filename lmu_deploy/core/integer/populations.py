r"""Populations of an integer network: what their neurons store, and how they update.

Every class states one update rule of docs/reference/integer-semantics.md. :meth:`Population.update`
is that rule in int64, one frame of a batch at a time; it is what every faster form is compared
with. With D the sum of the drives of all edges that enter a population, and b its bias:

===============  ==========================================================================
Integrators      m = sat(m + D + b), M = sat(ms(m, 1, shift))
Series           the Taylor series of a Legendre memory, in substeps
Pointwise        z = sat(D + b), H = sat(f(z))
Product          H = sat(ms(f(z1), g(z2), shift))
LSTMUnits        c = sat(ms(c, F, 15) + ms(G, I, ...)), H = sat(ms(a(c), O, ...))
GRUUnits         h = sat(h + ms(sat(n - h), 1 - Z, 15)), H = sat(ms(h, 1, shift))
Maximum          H = the greatest of several drives
Reduction        the sum, mean, maximum or last of all frames, once, at the end
Output          y = sat(D + b)
===============  ==========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import LATER
from lmu_deploy.core.integer.functions import (
    Counts,
    Function,
    PiecewiseLinear,
    Segments,
    check_function,
    rounded_shift,
    saturated,
)
from lmu_deploy.core.integer.parts import (
    LARGEST_SHIFT,
    Edge,
    Format,
    Place,
    check_bias,
    check_type,
    largest,
)
from lmu_deploy.core.representation import Part
from lmu_deploy.core.validation import (
    check_array,
    check_flag,
    check_integer,
    set_fields,
)

GATE_BITS = 15
"""Fraction bits of a gate: the integer 32,767 represents almost 1."""
GATE = Format(GATE_BITS + 1, 2.0**-GATE_BITS)
LARGEST_SIZE = 2**24


class Population(Part):
    """A group of neurons with one update rule, which send messages of one format.

    Attributes
    ----------
    place : Place
    size : int
        Number of neurons.
    message : Format
    bias : ndarray, shape (drive_size,), int32, or None
    drives : int
        Number of accumulated drives of each neuron.
    stateless : bool
        Whether a message follows from the drive of the same frame alone.
    independent : bool
        Whether an update of a neuron depends on its own drives and state alone.
    counted : tuple of str
        What can saturate, besides accumulators.
    """

    place: Place
    size: int
    message: Format
    bias: np.ndarray | None
    drives: ClassVar[int] = 1
    stateless: ClassVar[bool] = True
    independent: ClassVar[bool] = True
    counted: ClassVar[tuple[str, ...]] = ("message",)
    sends: ClassVar[bool] = True

    @property
    def drive_size(self) -> int:
        """Number of sums that enter the population."""
        return self.drives * self.size

    @property
    def entrance(self) -> Place:
        """Place at which edges enter; that of the population, except for a series."""
        return self.place

    @property
    def inner_edges(self) -> tuple[Edge, ...]:
        """Edges that act within an update, such as that of a series to itself."""
        return ()

    def start(self, batch: int) -> Any:
        """Return the state before the first frame."""
        return None

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Update all neurons by one frame.

        Parameters
        ----------
        state : what `start` or the last update returned
        drive : ndarray, shape (batch, drive_size), int64
            Sum of all drives, without the bias.

        Returns
        -------
        state
        messages : ndarray, shape (batch, size), int64
        counts : dict of str to int
            Saturated values.
        """
        raise NotImplementedError

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return what a recording of the population holds: its messages, or its states."""
        return messages

    def resumed(self, recorded: np.ndarray) -> Any:
        """Return the state in which a recorded frame left the population.

        A population that is not `resumable` has states that its recording does not hold.
        """
        return None

    def sent(self, recorded: np.ndarray) -> np.ndarray:
        """Return the messages that belong to a recorded frame."""
        return recorded

    @property
    def resumable(self) -> bool:
        """Whether a recording holds all that the population keeps from one frame to the next."""
        return self.stateless

    @property
    def first_message(self) -> np.ndarray | None:
        """Message before the first frame, shape (size,); None if it is zero."""
        return None

    @property
    def scale(self) -> float:
        """Real value of one unit of what is recorded."""
        return self.message.scale

    @property
    def stored(self) -> Format:
        """Format of the widest value that a neuron keeps or adds up."""
        return self.message

    @property
    def functions(self) -> tuple[Function, ...]:
        """Functions that the neurons apply."""
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return tuple(v for v in values if isinstance(v, PiecewiseLinear | Segments))

    @property
    def drive_scales(self) -> np.ndarray:
        """Real value of one unit of every sum that enters; shape (drive_size,), float64."""
        return np.full(self.drive_size, self.stored.scale)

    @property
    def saturation_places(self) -> tuple[str, ...]:
        """Texts of the places where saturations of neurons are counted."""
        return tuple(f"{self.place}/{name}" for name in self.counted)

    def only(self, neuron: int) -> Population:
        """Return one neuron of an `independent` population as a population of its own.

        Its drives are those of the neuron, in the same order.
        """
        given = {"bias": self.bias, "initial": getattr(self, "initial", None)}
        own = {
            name: values.reshape(-1, self.size)[:, neuron]
            for name, values in given.items()
            if values is not None
        }
        return replace(self, size=1, **own)  # type: ignore[type-var]

    def driven(self, drive: np.ndarray) -> np.ndarray:
        """Return the drive with the bias."""
        return drive if self.bias is None else drive + self.bias

    def check(self) -> None:
        """Raise InputError when a field that all populations have is invalid."""
        check_type("population", self.place, Place)
        check_type(f"{self.place}", self.message, Format)
        set_fields(
            self,
            size=check_integer(f"{self.place} size", self.size, 1, LARGEST_SIZE),
            bias=check_bias(f"{self.place} bias", self.bias, self.drive_size),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Input(Population):
    """Messages of the real inputs, ``x = sat(rint((gain * real + offset) / scale))``, ties to even.

    Attributes
    ----------
    place : Place
    size : int
        Number of features, or of tokens.
    message : Format
    tokens : bool
        Whether the input is one whole number, the index of the only neuron that sends; its message
        is ``rint(1 / scale)``.
    gain, offset : ndarray, shape (size,), float64, or None
        Of every channel: they give each its own unit and zero. None means 1 and 0.
    """

    place: Place
    size: int
    message: Format
    tokens: bool = False
    gain: np.ndarray | None = field(default=None, metadata=LATER)
    offset: np.ndarray | None = field(default=None, metadata=LATER)
    counted: ClassVar[tuple[str, ...]] = ("",)

    @property
    def bias(self) -> None:  # type: ignore[override]
        """None: inputs are encoded as they are."""

    def __post_init__(self) -> None:
        check_type("population", self.place, Place)
        check_type(f"{self.place}", self.message, Format)
        check_flag("input tokens", self.tokens)
        set_fields(self, size=check_integer("input size", self.size, 1, LARGEST_SIZE))
        for name in ("gain", "offset"):
            if (values := getattr(self, name)) is not None:
                values = check_array(f"input {name}", values, (self.size,)).astype(np.float64)
                set_fields(self, **{name: values})
        if self.gain is not None and (self.tokens or not self.gain.all()):
            raise InputError("the gains of an input must not be zero, and tokens have none.")

    @property
    def features(self) -> int:
        """Number of real values of a frame."""
        return 1 if self.tokens else self.size

    def scaled(self, real: np.ndarray) -> np.ndarray:
        """Return real inputs of shape (..., features) in the unit and zero of their channels.

        These are the numbers that messages round, and that nodes on the host read.
        """
        if self.gain is not None:
            real = real * self.gain
        return real if self.offset is None else real + self.offset

    def unscaled(self, messages: np.ndarray) -> np.ndarray:
        """Return the real inputs, of shape (..., features), that messages represent."""
        real = messages * self.message.scale
        if self.offset is not None:
            real = real - self.offset
        return real if self.gain is None else real / self.gain

    @property
    def saturation_places(self) -> tuple[str, ...]:
        """The input itself."""
        return (str(self.place),)

    def one_hot(self, tokens: np.ndarray) -> np.ndarray:
        """Return the messages of tokens of shape (..., 1).

        Raises
        ------
        InputError
            When a token is no whole number or has no neuron.
        """
        index = tokens[..., 0].astype(np.int64)
        wrong = (index != tokens[..., 0]) | (index < 0) | (index >= self.size)
        if wrong.any():
            raise InputError(
                f"token {tokens[..., 0][wrong].flat[0]:g} is outside 0 to {self.size - 1}; give "
                "whole numbers that the embedding has a row for."
            )
        found = np.zeros((*index.shape, self.size), np.int64)
        np.put_along_axis(found, index[..., None], round(1.0 / self.message.scale), axis=-1)
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Pointwise(Population):
    """Units that apply a function to their drive: ``z = sat(D + b)``, ``H = sat(f(z))``.

    Attributes
    ----------
    place, size, message, bias
    drive : Format
        Of z.
    function : PiecewiseLinear or Segments
    initial : ndarray, shape (size,), int32, or None
        Messages before the first frame; zero if None.
    """

    place: Place
    size: int
    drive: Format
    message: Format
    function: Function
    bias: np.ndarray | None = None
    initial: np.ndarray | None = None
    counted: ClassVar[tuple[str, ...]] = ("drive", "message")

    def __post_init__(self) -> None:
        self.check()
        check_type(f"{self.place}", self.drive, Format)
        check_function(str(self.place), self.function)
        name = f"{self.place} initial"
        set_fields(self, initial=check_bias(name, self.initial, self.size))

    @property
    def first_message(self) -> np.ndarray | None:
        """Messages before the first frame; None if they are zero."""
        return self.initial

    @property
    def stored(self) -> Format:
        """Format of z."""
        return self.drive

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Apply the function."""
        counts: Counts = {}
        z = saturated(self.driven(drive), self.drive.limit, "drive", counts)
        return state, saturated(self.function(z), self.message.limit, "message", counts), counts


@dataclass(frozen=True, eq=False, repr=False)
class Product(Population):
    """Products of two drives: ``H = sat(ms(f(z1), g(z2), shift))``.

    ``z1`` is the first half of the drive and has 24 bits; ``g(z2)`` has 16 bits, so that the
    product is the one that a gain needs. Either function may be absent.

    Attributes
    ----------
    place, size, message, bias
    first_drive, second_drive : Format
    shift : int
        0 to 31.
    first, second : PiecewiseLinear or Segments, or None
    """

    place: Place
    size: int
    first_drive: Format
    second_drive: Format
    message: Format
    shift: int
    first: Function | None = None
    second: Function | None = None
    bias: np.ndarray | None = None
    drives: ClassVar[int] = 2
    counted: ClassVar[tuple[str, ...]] = ("drive", "factor", "message")

    def __post_init__(self) -> None:
        self.check()
        for each in (self.first_drive, self.second_drive):
            check_type(f"{self.place}", each, Format)
        for function in (self.first, self.second):
            if function is not None:
                check_function(str(self.place), function)
        set_fields(self, shift=check_integer("product shift", self.shift, 0, LARGEST_SHIFT))

    @property
    def stored(self) -> Format:
        """Format of z1."""
        return self.first_drive

    @property
    def drive_scales(self) -> np.ndarray:
        """Real value of one unit of every sum, those of z1 first."""
        return np.repeat([self.first_drive.scale, self.second_drive.scale], self.size)

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Multiply."""
        counts: Counts = {}
        z1, z2 = np.split(self.driven(drive), 2, axis=1)
        z1 = saturated(z1, self.first_drive.limit, "drive", counts)
        z2 = saturated(z2, self.second_drive.limit, "drive", counts)
        a = z1 if self.first is None else self.first(z1)
        b = z2 if self.second is None else self.second(z2)
        a = saturated(a, largest(24), "factor", counts)
        b = saturated(b, GATE.limit, "factor", counts)
        product = rounded_shift(a * b, self.shift)
        return state, saturated(product, self.message.limit, "message", counts), counts


@dataclass(frozen=True, eq=False, repr=False)
class Output(Population):
    """Outputs of the network, ``y = sat(D + b)``, which leave the chip.

    Attributes
    ----------
    place, size, message, bias
        `message` is the format of y.
    """

    place: Place
    size: int
    message: Format
    bias: np.ndarray | None = None
    counted: ClassVar[tuple[str, ...]] = ("output",)
    sends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check()

    def update(self, state: Any, drive: np.ndarray) -> tuple[Any, np.ndarray, Counts]:
        """Limit the sums."""
        counts: Counts = {}
        return state, saturated(self.driven(drive), self.message.limit, "output", counts), counts
