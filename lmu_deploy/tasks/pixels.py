"""Images read pixel by pixel, kept as bytes and made into floats batch by batch.

50,000 sequences of 784 pixels are 39 MB as bytes and 157 MB as float32, so a training only makes
the batch at hand into floats.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.tasks.base import Split


class PixelSplit(Split):
    """A split of brightness values, one pixel a step.

    Parameters
    ----------
    pixels : ndarray, shape (samples, steps), uint8
    targets : ndarray, shape (samples,), int64
    white : int
        The value of a full-bright pixel, which becomes 1.
    """

    pixels: np.ndarray
    white: int

    def __init__(self, pixels: np.ndarray, targets: np.ndarray, white: int) -> None:
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "white", white)

    @property
    def inputs(self) -> np.ndarray:
        """All inputs as floats, shape (samples, steps, 1), float32; made anew at every call."""
        return self._as_floats(self.pixels)

    def batch(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Give inputs (samples, steps, 1), float32, and targets of some samples."""
        return self._as_floats(self.pixels[index]), self.targets[index]

    def _as_floats(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels.astype(np.float32) / np.float32(self.white))[:, :, None]
