"""What is under way in a hybrid: messages from step to step, and what one step has made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Traffic:
    """What is under way within and between steps.

    Attributes
    ----------
    sent : dict of population to its last messages
    tails : dict of population to ndarray, shape (batch, Legendre states)
        What delay lines have forgotten and are given back.
    held : dict of connection to the messages that its target holds
        Of those whose messages are sent when they have changed enough.
    """

    sent: dict[str, np.ndarray]
    tails: dict[str, np.ndarray] = field(default_factory=dict)
    held: dict[str, np.ndarray] = field(default_factory=dict)

    def delivered(self, place: str, source: str, threshold: int) -> np.ndarray:
        """Give what a connection's target holds; asked for once a step."""
        messages = self.sent[source]
        if not threshold:
            return messages
        held = self.held.get(place, np.zeros_like(messages))
        self.held[place] = np.where(np.abs(messages - held) >= threshold, messages, held)
        return self.held[place]


@dataclass(frozen=True)
class Moment:
    """One step of a batch, in units of the formats.

    Attributes
    ----------
    x : ndarray, shape (batch, n_in)
    m, message : dict of layer number to ndarray
        States and memory messages of each layer on the chip.
    h : dict of layer number to ndarray
        Hidden messages, empty without hidden units; of a layer on the host what it sends.
    y : ndarray, shape (batch, n_out)
    real_m : dict of layer number to ndarray, shape (batch, Legendre states)
        Each memory in the float network's coordinates.
    """

    x: np.ndarray
    m: dict[int, np.ndarray]
    message: dict[int, np.ndarray]
    h: dict[int, np.ndarray]
    y: np.ndarray
    real_m: dict[int, np.ndarray]

    def sent(self, population: str) -> np.ndarray:
        """Messages of a population that is no series; see :class:`lmu_deploy.wiring.Population`."""
        if population == "input":
            return self.x
        layer, _, part = population.partition("/")
        number = int(layer.removeprefix("layer"))
        return self.message[number] if part == "memory" else self.h[number]
