"""Images presented pixel by pixel, stored as bytes and converted to floats in batches.

50,000 sequences of 784 pixels take 39 MB as bytes and 157 MB as float32.
"""

from __future__ import annotations

import numpy as np

from lmu_deploy.tasks.base import Split


class PixelSplit(Split):
    """A split of gray values, one pixel per step.

    Parameters
    ----------
    pixels : ndarray, shape (samples, steps), uint8
    targets : ndarray, shape (samples,), int64
    white : int
        Value of a white pixel, which is mapped to 1.
    """

    pixels: np.ndarray
    white: int

    def __init__(self, pixels: np.ndarray, targets: np.ndarray, white: int) -> None:
        object.__setattr__(self, "pixels", pixels)
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "white", white)

    @property
    def inputs(self) -> np.ndarray:
        """All inputs, shape (samples, steps, 1), float32; converted at every access."""
        return self._as_floats(self.pixels)

    def batch(self, index: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs (samples, steps, 1), float32, and targets of some samples."""
        return self._as_floats(self.pixels[index]), self.targets[index]

    def _as_floats(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels.astype(np.float32) / np.float32(self.white))[:, :, None]
