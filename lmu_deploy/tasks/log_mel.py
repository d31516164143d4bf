r"""LogMel: sound as logarithmic energies in mel bands, frame by frame, with an exact inverse.

Of samples :math:`s_n` between -1 and 1, with a window :math:`w` of N samples (Hann) that moves by a
hop of H samples, band b of frame t is

.. math::
   P_{t,k} &= \Big| \sum_{n=0}^{N-1} w_n\, s_{tH + n}\, e^{-2 \pi i k n / N} \Big|^2 \\
   E_{t,b} &= \sum_k M_{k,b} P_{t,k} \\
   y_{t,b} &= \log_2(1 + E_{t,b} / f) / d

M holds triangles whose corners are equally spaced on the mel scale, 2595 log10(1 + Hz / 700)
(O'Shaughnessy 1987). Silence is y = 0, and what is far above the floor f grows by 1 for every d
doublings of the energy. No frame needs samples behind its own window, so that a microphone can be
read while it records.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import numpy as np

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.validation import check_integer, check_number, set_fields

FULL_SCALE = 32_768
"""Largest amplitude of 16-bit samples, which represents 1."""
FRONT_END = "front_end"
"""Entry of a network's provenance: the front end of its task, as JSON."""


@dataclass(frozen=True)
class LogMel:
    """Parameters of the front end.

    Attributes
    ----------
    rate : int
        Samples per second.
    window, hop : int
        Samples of a frame, and from one frame to the next.
    bands : int
    low, high : float
        Frequencies at which the first triangle begins and the last one ends, in Hz.
    floor : float
        f, the energy below which differences fade.
    doublings : float
        d, doublings of the energy that one unit of the output represents.

    Raises
    ------
    InputError
        When a value is out of range, or a band is narrower than the distance of two frequencies.
    """

    rate: int = 8_000
    window: int = 256
    hop: int = 128
    bands: int = 32
    low: float = 60.0
    high: float = 4_000.0
    floor: float = 2.0**-20
    doublings: float = 8.0

    def __post_init__(self) -> None:
        rate = check_integer("front end, rate", self.rate, 100, 1_000_000)
        window = check_integer("front end, window", self.window, 2, 65_536)
        set_fields(
            self,
            rate=rate,
            window=window,
            hop=check_integer("front end, hop", self.hop, 1, window),
            bands=check_integer("front end, bands", self.bands, 1, window // 2),
            low=check_number("front end, low", self.low, 0.0, rate / 2),
            high=check_number("front end, high", self.high, 0.0, rate / 2),
            floor=check_number("front end, floor", self.floor, 1e-30, 1e30),
            doublings=check_number("front end, doublings", self.doublings, 1e-3, 1e3),
        )
        if self.high <= self.low or not self.filters.any(axis=0).all():
            raise InputError(
                f"front end: {self.bands} bands from {self.low:g} to {self.high:g} Hz, and a "
                f"window of {self.window} samples tells frequencies {rate / window:g} Hz apart; "
                "take fewer bands, a wider range or a longer window."
            )

    @cached_property
    def weights(self) -> np.ndarray:
        """The window w, shape (window,)."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    @cached_property
    def filters(self) -> np.ndarray:
        """The triangles M, shape (window // 2 + 1, bands)."""
        first, last = 2595 * np.log10(1 + np.array([self.low, self.high]) / 700)
        corners = 700 * (10 ** (np.linspace(first, last, self.bands + 2) / 2595) - 1)
        hertz = np.arange(self.window // 2 + 1)[:, None] * self.rate / self.window
        left, top, right = corners[:-2], corners[1:-1], corners[2:]
        rise, fall = (hertz - left) / (top - left), (right - hertz) / (right - top)
        return np.maximum(0.0, np.minimum(rise, fall))

    def frames(self, samples: int) -> int:
        """Return how many frames lie wholly within a number of samples."""
        return max(0, (samples - self.window) // self.hop + 1)

    def samples(self, frames: int) -> int:
        """Return the fewest samples that make a number of frames."""
        return (frames - 1) * self.hop + self.window

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """Return the frames of samples.

        Parameters
        ----------
        samples : ndarray, shape (..., n)
            16-bit integers, or real numbers between -1 and 1.

        Returns
        -------
        ndarray, shape (..., frames, bands), float64

        Raises
        ------
        InputError
            When there are fewer samples than a window has.
        """
        samples = np.asarray(samples)
        if samples.ndim == 0 or samples.shape[-1] < self.window:
            raise InputError(
                f"{samples.shape[-1] if samples.ndim else 0} samples are no frame, which has "
                f"{self.window}; give more, or pad them with zeros."
            )
        if samples.dtype == np.int16:
            samples = samples / FULL_SCALE
        shown = np.lib.stride_tricks.sliding_window_view(samples, self.window, axis=-1)
        spectrum = np.fft.rfft(shown[..., :: self.hop, :] * self.weights)
        return self.of_energies((spectrum.real**2 + spectrum.imag**2) @ self.filters)

    def of_energies(self, energies: np.ndarray) -> np.ndarray:
        """Return y for energies E."""
        return np.log2(1.0 + energies / self.floor) / self.doublings

    def energies(self, frames: np.ndarray) -> np.ndarray:
        """Return the energies E of y, which must not be negative."""
        return (np.exp2(frames * self.doublings) - 1.0) * self.floor

    def stream(self) -> Microphone:
        """Return an object that takes samples in pieces of any length."""
        return Microphone(self)

    def to_json(self) -> str:
        """Return the parameters as JSON, for the provenance of a network."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LogMel:
        """Return the front end that :meth:`to_json` described.

        Raises
        ------
        InputError
            When the text is something else.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError("the network's front end is not JSON; train it again.") from error
        known = {each.name for each in fields(cls)}
        if not isinstance(values, dict) or set(values) != known:
            raise InputError(
                f"the network's front end does not consist of {', '.join(sorted(known))}; train "
                "it again."
            )
        return cls(**values)


class Microphone:
    """Samples that arrive in pieces, as frames as soon as they are complete.

    Parameters
    ----------
    front_end : LogMel
    """

    def __init__(self, front_end: LogMel) -> None:
        self.front_end = front_end
        self._waiting = np.zeros(0, np.int16)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples; return the frames that they complete.

        Parameters
        ----------
        samples : ndarray, shape (n,), int16

        Returns
        -------
        ndarray, shape (frames, bands), float64
        """
        waiting = np.concatenate([self._waiting, np.asarray(samples, np.int16)])
        ready = self.front_end.frames(len(waiting))
        self._waiting = waiting[ready * self.front_end.hop :]
        if not ready:
            return np.zeros((0, self.front_end.bands))
        return self.front_end.apply(waiting[: self.front_end.samples(ready)])
