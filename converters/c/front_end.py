r"""The log-mel front end in integers: its arithmetic in NumPy, and the same as C99.

16-bit samples s go in, messages of a network's input come out. With a window of :math:`N = 2^p`
samples and :math:`\lfloor a \rceil_g = \lfloor (a + 2^{g-1}) / 2^g \rfloor`:

1. :math:`v_n = \lfloor s_n w_n \rceil_{p+7}`, w with 23 fraction bits.
2. A radix-2 transform, decimated in time. Twiddle factors have 30 fraction bits, and real and
   imaginary part of every product are :math:`\lfloor \cdot \rceil_{30}`.
   Sums of v are below 2^31 by construction, so that nothing overflows.
3. :math:`P_k = \lfloor (\mathrm{re}_k^2 + \mathrm{im}_k^2) / 2^{16} \rfloor` and
   :math:`E_b = \sum_k M_{kb} P_k`, M with 12 fraction bits.
4. The logarithm of E + F, F the floor in the same unit, with 16 fraction bits: the place of the
   highest bit, and a line for the bits behind it, from a table of 64.
5. The message is :math:`\lfloor (\log_2(E + F) - \log_2 F)\, g \rceil_{30}`, at most its limit,
   with a gain g for doublings and input scale. Silence is 0 exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from converters.c.rules import array
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.loading import float_source
from lmu_deploy.tasks.log_mel import FRONT_END, LogMel

_WINDOW_BITS = 23
_TURN_BITS, _FILTER_BITS, _LOG_BITS, _GAIN_BITS = 30, 12, 16, 30
_POWER_SHIFT = 16
_TABLE_BITS = 6
_HEAD = 31  # place of the highest bit after normalization
_MOST_FILTER_SUM = 2**17
"""Energies stay below 2^62: powers are below 2^45."""


@dataclass(frozen=True)
class IntegerLogMel:
    """A front end whose frames are messages.

    Attributes
    ----------
    front_end : LogMel
        With a window of a power of two samples that is a multiple of its hop.
    scale : float
        Real value of one unit of a message.
    limit : int
        Largest message.

    Raises
    ------
    InputError
        When the front end has no integer form.
    """

    front_end: LogMel
    scale: float
    limit: int

    def __post_init__(self) -> None:
        front, window = self.front_end, self.front_end.window
        if window & (window - 1) or window % front.hop or window > 2**12:
            raise InputError(
                f"front end: a window of {window} samples and a hop of {front.hop} have no integer "
                "form; take a window of a power of two, at most 4096, and a hop that divides it."
            )
        if not 1 <= self.floor < 2**40 or self.filters.sum(axis=0).max() >= _MOST_FILTER_SUM:
            raise InputError(
                f"front end: a floor of {front.floor:g} or {front.bands} bands cannot be shown in "
                "64-bit integers; take a floor nearer to 1e-6, or more bands."
            )
        if not 2**8 <= self.gain < 2**31:
            raise InputError(
                f"front end: {front.doublings:g} doublings and an input scale of {self.scale:g} "
                "have no integer gain; take doublings nearer to 8."
            )

    @classmethod
    def of_network(cls, network: IntegerNetwork) -> IntegerLogMel | None:
        """Return the front end of a network's task; None where it records none."""
        source = float_source(network)
        notes = {**({} if source is None else source.provenance), **network.provenance}
        if FRONT_END not in notes:
            return None
        front, message = LogMel.from_json(notes[FRONT_END]), network.input.message
        if network.input.features != front.bands:
            raise InputError(
                f"the network takes {network.input.features} features and its front end has "
                f"{front.bands} bands; the two must be equal."
            )
        if network.input.gain is not None or network.input.offset is not None:
            raise InputError(
                "the bands of this network have different units, and the front end in C gives "
                "all the same; train with --scaling none."
            )
        return cls(front, message.scale, message.limit)

    @property
    def bits(self) -> int:
        """p, the logarithm of the window."""
        return self.front_end.window.bit_length() - 1

    @property
    def window_shift(self) -> int:
        """Bits that a product with the window is shifted by."""
        return self.bits + _WINDOW_BITS - 16

    @cached_property
    def window(self) -> np.ndarray:
        """The window, int64."""
        return np.rint(self.front_end.weights * 2**_WINDOW_BITS).astype(np.int64)

    @cached_property
    def turns(self) -> np.ndarray:
        """Twiddle factors, real and imaginary, shape (2, window // 2), int64."""
        angles = 2 * np.pi * np.arange(self.front_end.window // 2) / self.front_end.window
        return np.rint(2**_TURN_BITS * np.stack([np.cos(angles), -np.sin(angles)])).astype(np.int64)

    @cached_property
    def filters(self) -> np.ndarray:
        """The triangles, int64."""
        return np.rint(self.front_end.filters * 2**_FILTER_BITS).astype(np.int64)

    @cached_property
    def logs(self) -> np.ndarray:
        """Logarithms of 1 to 2 in 65 places, int64."""
        places = 1 + np.arange(2**_TABLE_BITS + 1) / 2**_TABLE_BITS
        return np.rint(2**_LOG_BITS * np.log2(places)).astype(np.int64)

    @property
    def floor(self) -> int:
        """F."""
        unit = 2.0 ** (2 * (31 - self.bits) - _POWER_SHIFT + _FILTER_BITS)
        return round(min(self.front_end.floor * unit, 2.0**60))

    @property
    def gain(self) -> int:
        """Factor of a logarithm, before it is shifted by 30."""
        return round(2 ** (_GAIN_BITS - _LOG_BITS) / (self.front_end.doublings * self.scale))

    def log(self, values: np.ndarray) -> np.ndarray:
        """Return logarithms of positive integers, with 16 fraction bits."""
        rest, exponent = values.copy(), np.zeros_like(values)
        for step in (32, 16, 8, 4, 2, 1):
            large = rest >> step > 0
            exponent += step * large
            rest = np.where(large, rest >> step, rest)
        down, up = np.maximum(exponent - _HEAD, 0), np.maximum(_HEAD - exponent, 0)
        head = (values >> down) << up
        rest_bits = _HEAD - _TABLE_BITS
        line = (head >> rest_bits) - 2**_TABLE_BITS
        rise = (self.logs[line + 1] - self.logs[line]) * (head & (2**rest_bits - 1))
        return (exponent << _LOG_BITS) + self.logs[line] + _shifted(rise, rest_bits)

    def apply(self, samples: np.ndarray) -> np.ndarray:
        """Return the messages of samples.

        Parameters
        ----------
        samples : ndarray, shape (..., n), int16

        Returns
        -------
        ndarray, shape (..., frames, bands), int32
        """
        front = self.front_end
        shown = np.lib.stride_tricks.sliding_window_view(samples, front.window, axis=-1)
        shown = shown[..., :: front.hop, :].astype(np.int64)
        real, imaginary = self._transform(_shifted(shown * self.window, self.window_shift))
        energies = ((real**2 + imaginary**2) >> _POWER_SHIFT) @ self.filters
        logs = self.log(energies + self.floor) - self.log(np.array([self.floor]))
        found = _shifted(logs * self.gain, _GAIN_BITS)
        return np.minimum(found, self.limit).astype(np.int32)

    def _transform(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower half of the spectrum of frames, shape (..., window // 2 + 1)."""
        n = self.front_end.window
        index = np.arange(n)
        reverse = sum(((index >> bit) & 1) << (self.bits - 1 - bit) for bit in range(self.bits))
        real = values[..., reverse]
        imaginary = np.zeros_like(real)
        half = 1
        while half < n:
            turn = self.turns[:, :: n // (2 * half)]
            shape = (*values.shape[:-1], n // (2 * half), 2, half)
            a, b = real.reshape(shape), imaginary.reshape(shape)
            odd = a[..., 1, :], b[..., 1, :]
            more = _shifted(odd[0] * turn[0] - odd[1] * turn[1], _TURN_BITS)
            turned = _shifted(odd[0] * turn[1] + odd[1] * turn[0], _TURN_BITS)
            real = np.stack([a[..., 0, :] + more, a[..., 0, :] - more], -2).reshape(values.shape)
            imaginary = np.stack([b[..., 0, :] + turned, b[..., 0, :] - turned], -2)
            imaginary = imaginary.reshape(values.shape)
            half *= 2
        return real[..., : n // 2 + 1], imaginary[..., : n // 2 + 1]


def _shifted(values: np.ndarray, shift: int) -> np.ndarray:
    """Return values divided by a power of two, rounded to the nearest, halves upward."""
    return (values + (1 << (shift - 1))) >> shift


_HEADER = """\
#ifndef {upper}_SOUND_H
#define {upper}_SOUND_H

#include <stdint.h>

/* Log-mel frames of 16-bit samples, {rate} a second: the inputs of {name}_step. */
#define {upper}_SOUND_HOP {hop}
#define {upper}_SOUND_BANDS {bands}

typedef struct {{
    int16_t samples[{window}];
    int32_t real[{window}];
    int32_t imaginary[{window}];
    int32_t hops;
}} {name}_sound_t;

#ifdef __cplusplus
extern "C" {{
#endif

/* Begin, or begin again. */
void {name}_sound_init({name}_sound_t *s);

/* Take the next samples; return 1 if x holds a frame, and 0 for the first {silent} calls. */
int {name}_sound_push({name}_sound_t *s, const int16_t samples[{hop}], int32_t x[{bands}]);

#ifdef __cplusplus
}}
#endif

#endif
"""

_SOURCE = """\
/* The front end of {name}: log-mel frames in integers, made by lmu_deploy. */
#include "{name}_sound.h"

{tables}
/* Right shifts of negative numbers must round down, as they do on every known compiler. */
typedef char sound_shift_rounds_down[((-3) >> 1) == -2 ? 1 : -1];

static int64_t rounded(int64_t v, unsigned shift)
{{
    return (v + ((int64_t)1 << (shift - 1u))) >> shift;
}}

/* log2 of a positive number, 16 fraction bits. */
static int32_t logarithm(int64_t v)
{{
    int32_t e = 0;
    int64_t head;
    uint32_t line, rest;
    while (v >> e > 1) {{
        e++;
    }}
    head = e > {head} ? v >> (e - {head}) : v << ({head} - e);
    line = (uint32_t)((head >> {rest_bits}) - {lines});
    rest = (uint32_t)(head & {rest_mask});
    return e * {log_one} + logs[line]
        + (int32_t)rounded((int64_t)(logs[line + 1] - logs[line]) * rest, {rest_bits}u);
}}

static void transform(int32_t *re, int32_t *im)
{{
    int32_t half, k, j;
    for (half = 1; half < {window}; half *= 2) {{
        for (k = 0; k < {window}; k += 2 * half) {{
            for (j = 0; j < half; j++) {{
                const int32_t n = j * ({half_window} / half), a = k + j, b = k + j + half;
                const int64_t c = turn_real[n], s = turn_imaginary[n];
                const int32_t x = (int32_t)rounded(re[b] * c - im[b] * s, {turn_bits}u);
                const int32_t y = (int32_t)rounded(re[b] * s + im[b] * c, {turn_bits}u);
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }}
        }}
    }}
}}

void {name}_sound_init({name}_sound_t *s)
{{
    int32_t i;
    for (i = 0; i < {window}; i++) {{
        s->samples[i] = 0;
    }}
    s->hops = 0;
}}

int {name}_sound_push({name}_sound_t *s, const int16_t samples[{hop}], int32_t x[{bands}])
{{
    int32_t i, b, place = 0;
    for (i = 0; i < {window} - {hop}; i++) {{
        s->samples[i] = s->samples[i + {hop}];
    }}
    for (i = 0; i < {hop}; i++) {{
        s->samples[{window} - {hop} + i] = samples[i];
    }}
    if (s->hops < {silent}) {{
        s->hops++;
        return 0;
    }}
    for (i = 0; i < {window}; i++) {{
        int32_t mirrored = 0, bit;
        for (bit = 0; bit < {bits}; bit++) {{
            mirrored |= ((i >> bit) & 1) << ({bits} - 1 - bit);
        }}
        s->real[mirrored] = (int32_t)rounded((int64_t)s->samples[i] * window[i], {window_shift}u);
        s->imaginary[mirrored] = 0;
    }}
    transform(s->real, s->imaginary);
    for (b = 0; b < {bands}; b++) {{
        int64_t energy = {floor}, found;
        for (i = 0; i < filter_length[b]; i++) {{
            const int64_t re = s->real[filter_start[b] + i], im = s->imaginary[filter_start[b] + i];
            energy += ((re * re + im * im) >> {power_shift}) * filters[place++];
        }}
        found = rounded((int64_t)(logarithm(energy) - logarithm({floor})) * {gain}, {gain_bits}u);
        x[b] = found > {limit} ? {limit} : (int32_t)found;
    }}
    return 1;
}}
"""

_TEST = """\
/* Feed samples to the front end and compare its frames: exit status 0 means that all are equal. */
#include <stdio.h>

#include "{name}_sound.h"

{samples}
{frames}
static {name}_sound_t sound;

int main(void)
{{
    int32_t x[{upper}_SOUND_BANDS];
    long n, i, frame = 0, wrong = 0;
    {name}_sound_init(&sound);
    for (n = 0; n < {hops}; n++) {{
        if ({name}_sound_push(&sound, samples + n * {upper}_SOUND_HOP, x)) {{
            for (i = 0; i < {upper}_SOUND_BANDS; i++) {{
                wrong += x[i] != frames[frame * {upper}_SOUND_BANDS + i];
            }}
            frame++;
        }}
    }}
    printf("{name}_sound: %ld frames, %ld values differ\\n", frame, wrong);
    return wrong != 0 || frame != {count};
}}
"""


def front_end_files(front: IntegerLogMel, name: str) -> dict[str, str]:
    """Return header, source and test of a front end by file name.

    Parameters
    ----------
    front : IntegerLogMel
    name : str
        Prefix of the files and of all public names, a C identifier.
    """
    own = front.front_end
    used = [np.flatnonzero(column) for column in front.filters.T]
    starts = np.array([rows[0] for rows in used])
    lengths = np.array([rows[-1] - rows[0] + 1 for rows in used])
    packed = np.concatenate(
        [front.filters[rows[0] : rows[-1] + 1, band] for band, rows in enumerate(used)]
    )
    tables = [
        array("int32_t", "window", front.window),
        array("int32_t", "turn_real", front.turns[0]),
        array("int32_t", "turn_imaginary", front.turns[1]),
        array("int16_t", "filter_start", starts),
        array("int16_t", "filter_length", lengths),
        array("int16_t", "filters", packed),
        array("int32_t", "logs", front.logs),
    ]
    values = {
        "name": name,
        "upper": name.upper(),
        "rate": f"{own.rate:,}",
        "hop": own.hop,
        "window": own.window,
        "half_window": own.window // 2,
        "bands": own.bands,
        "silent": own.window // own.hop - 1,
        "bits": front.bits,
        "window_shift": front.window_shift,
        "turn_bits": _TURN_BITS,
        "power_shift": _POWER_SHIFT,
        "head": _HEAD,
        "rest_bits": _HEAD - _TABLE_BITS,
        "rest_mask": 2 ** (_HEAD - _TABLE_BITS) - 1,
        "lines": 2**_TABLE_BITS,
        "log_one": 2**_LOG_BITS,
        "floor": front.floor,
        "gain": front.gain,
        "gain_bits": _GAIN_BITS,
        "limit": front.limit,
    }
    hops = 12 + own.window // own.hop
    samples = trial_samples(hops * own.hop)
    frames = front.apply(samples)
    test = _TEST.format(
        **values,
        samples=array("int16_t", "samples", samples),
        frames=array("int32_t", "frames", frames),
        hops=hops,
        count=len(frames),
    )
    return {
        f"{name}_sound.h": _HEADER.format(**values),
        f"{name}_sound.c": _SOURCE.format(**values, tables="\n".join(tables)),
        f"test_{name}_sound.c": test,
    }


def trial_samples(count: int, seed: int = 0) -> np.ndarray:
    """Return samples, int16: silence, quiet noise, a loud sweep, and the two extremes in turn."""
    part = -(-count // 4)
    rng, n = np.random.default_rng(seed), np.arange(part)
    sweep = 32_000 * np.sin(np.pi * 0.9 * n**2 / (2 * part))
    extremes = np.where(rng.random(part) < 0.5, 32_767, -32_768)
    parts = [np.zeros(part), rng.normal(0, 20, part), sweep, extremes]
    return np.rint(np.concatenate(parts))[:count].astype(np.int16)
