"""The sending end of an outlet: of each message itself, or of its change once that is large."""

from __future__ import annotations

import numpy as np

from lmu_deploy.wiring import Outlet


class Axon:
    """What leaves a population under one threshold.

    Parameters
    ----------
    outlet : Outlet
    """

    def __init__(self, outlet: Outlet) -> None:
        self._threshold = outlet.threshold
        self._held = np.zeros(outlet.fan_out.shape, dtype=np.int64)

    def events(self, message: np.ndarray, first: bool) -> np.ndarray:
        """Give what is sent, shape (neurons,), zero where nothing is.

        Parameters
        ----------
        message : ndarray, shape (neurons,), int64
        first : bool
            Whether it is that of a sample's first step, before which 0 is held.
        """
        if not self._threshold:
            return message
        held = np.zeros_like(message) if first else self._held
        change = message - held
        sent = np.where(np.abs(change) >= self._threshold, change, 0)
        self._held = held + sent
        return sent
