r"""Augmentation: training sequences that are changed at random in every epoch.

Each sequence x of T steps and n features gets its own random numbers, in this order:

- time and features are stretched, :math:`x'_{t,i} = x_{(t - s) / a,\; i / b}`, by linear
  interpolation. What lies before the first or behind the last step is zero. Stretching the
  frequencies of a sound stands for another length of the vocal tract (Jaitly, Hinton 2013);
- its level is changed and noise is added. Where a front end made the frames from sound, both act on
  the energies of its bands, those of the noise with one level in each band and an exponential
  distribution, as the power of Gaussian noise has. Elsewhere both act on the values themselves;
- a band of features and a stretch of steps are replaced by the mean of the sequence (Park et al.
  2019, SpecAugment).

All random numbers come from torch's generator, which the trainer seeds for every epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from lmu_deploy.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from lmu_deploy.tasks.log_mel import LogMel

_TILT = 1.0  # standard deviation of a band's noise level, in powers of e


class Augmentation(BaseModel):
    """How training sequences are changed; zero leaves a property as it is.

    Attributes
    ----------
    stretch_time, stretch_features : float
        Largest relative change; a and b are drawn from exp(-stretch) to exp(stretch).
    shift : int
        s is drawn from zero to this number of steps.
    gain_db : float
        Standard deviation of the change of level, in dB.
    noise : float
        Share of the sequences that get noise.
    noise_db : float
        The noise is drawn from this many dB below the sequence to 40 dB less.
    mask_features, mask_steps : int
        Largest number of features and of steps that are replaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stretch_time: float = Field(default=0.0, ge=0, le=1)
    stretch_features: float = Field(default=0.0, ge=0, le=1)
    shift: int = Field(default=0, ge=0, le=1_000_000)
    gain_db: float = Field(default=0.0, ge=0, le=100)
    noise: float = Field(default=0.0, ge=0, le=1)
    noise_db: float = Field(default=20.0, ge=-100, le=100)
    mask_features: int = Field(default=0, ge=0, le=65_536)
    mask_steps: int = Field(default=0, ge=0, le=1_000_000)

    @property
    def moves_steps(self) -> bool:
        """Whether the number of steps that count changes."""
        return self.stretch_time > 0 or self.shift > 0

    def apply(
        self, x: Tensor, lengths: Tensor | None = None, front_end: LogMel | None = None
    ) -> Tensor:
        """Return changed sequences.

        Parameters
        ----------
        x : Tensor, shape (samples, steps, features)
        lengths : Tensor of int, shape (samples,), optional
            Steps that count, where they differ.
        front_end : LogMel, optional
            What made the features from sound.

        Returns
        -------
        Tensor, shape (samples, steps, features)

        Raises
        ------
        InputError
            When steps are to move and sequences have different lengths.
        """
        if lengths is not None and self.moves_steps:
            raise InputError(
                "augment: stretch_time and shift need sequences of one length, and the lengths "
                "of these differ; leave both out."
            )
        x = self._stretched(x)
        if self.gain_db or self.noise:
            if front_end is None:
                x = self._louder(x)
            else:
                energies = self._noisy((x * front_end.doublings).exp2() - 1.0)
                x = (energies + 1.0).log2() / front_end.doublings
        return self._masked(x, lengths)

    def _stretched(self, x: Tensor) -> Tensor:
        import torch

        samples, steps, features = x.shape
        if self.moves_steps:
            factor = _between(x, self.stretch_time).exp()
            begin = torch.rand(samples, 1) * self.shift
            x = _read(x, (torch.arange(steps) - begin) / factor)
        if self.stretch_features:
            factor = _between(x, self.stretch_features).exp()
            index = (torch.arange(features) / factor).clamp(max=features - 1)
            x = _read(x.transpose(1, 2), index).transpose(1, 2)
        return x

    def _factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a factor of the energy, and the energy of noise relative to the sequence's."""
        import torch

        shape = (len(x), 1, 1)
        gain = 10 ** (torch.randn(shape) * self.gain_db / 10)
        noise = 10 ** (-(self.noise_db + 40 * torch.rand(shape)) / 10)
        return gain, noise * (torch.rand(shape) < self.noise)

    def _noisy(self, energies: Tensor) -> Tensor:
        """Change energies of bands."""
        import torch

        gain, noise = self._factors(energies)
        level = (torch.randn(len(energies), 1, energies.shape[2]) * _TILT).exp()
        drawn = -torch.log1p(-torch.rand(energies.shape))
        loudest = energies.amax((1, 2), keepdim=True)
        return (energies + noise * loudest * level * drawn) * gain

    def _louder(self, x: Tensor) -> Tensor:
        """Change amplitudes."""
        import torch

        gain, noise = self._factors(x)
        rms = x.square().mean((1, 2), keepdim=True).sqrt()
        return (x + noise.sqrt() * rms * torch.randn(x.shape)) * gain.sqrt()

    def _masked(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        import torch

        samples, steps, features = x.shape
        ends = torch.full((samples,), steps) if lengths is None else lengths
        hidden = torch.zeros(samples, 1, 1, dtype=torch.bool)
        if self.mask_steps:
            hidden = hidden | _some(steps, self.mask_steps, ends)[:, :, None]
        if self.mask_features:
            own = _some(features, self.mask_features, torch.full((samples,), features))
            hidden = hidden | own[:, None, :]
        return torch.where(hidden, x.mean((1, 2), keepdim=True), x)


def _between(x: Tensor, limit: float) -> Tensor:
    """Return a number from -limit to limit for each sample, shape (samples, 1)."""
    import torch

    return (2 * torch.rand(len(x), 1) - 1) * limit


def _read(x: Tensor, index: Tensor) -> Tensor:
    """Return x (samples, places, ...) at real places (samples, n); zero outside.

    Between the first place and one before it, and behind the last, values fall to zero linearly.
    """
    places = x.shape[1]
    left = index.floor()
    share = (index - left)[:, :, None]
    found = []
    for place in (left, left + 1):
        inside = (place >= 0) & (place < places)
        picked = place.clamp(0, places - 1).long()[:, :, None].expand(-1, -1, x.shape[2])
        found.append(x.gather(1, picked) * inside[:, :, None])
    return found[0] * (1 - share) + found[1] * share


def _some(places: int, most: int, ends: Tensor) -> Tensor:
    """Return where a run of up to `most` places lies that ends before `ends`, by sample."""
    import torch

    width = (torch.rand(len(ends)) * (min(most, places) + 1)).floor()
    begin = (torch.rand(len(ends)) * (ends - width + 1).clamp(min=1)).floor()
    place = torch.arange(places)[None]
    return (place >= begin[:, None]) & (place < (begin + width)[:, None])
