"""Update rules of populations in the arrays of an engine.

The rules of integrators, pointwise units and readouts are made of an engine's own operations. All
others call the definition, :meth:`lmu_deploy.core.integer.populations.Population.update`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from lmu_deploy.core.integer.graph import memory_line
from lmu_deploy.core.integer.memories import Integrators, Series
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.core.integer.populations import Output, Pointwise, Population
from lmu_deploy.core.integer.reductions import Reduction
from targets.integer.engine import Engine

Counted = Iterable[tuple[str, int]]
"""Places and how many values saturated there."""


class Rule:
    """The definition, in int64.

    Attributes
    ----------
    moves : bool
        Whether a memory's own recurrent edge only moves its states, which needs no product.
    emits : bool
        Whether messages leave at every frame, not only at the end.
    """

    moves = False
    emits = True

    def __init__(self, population: Population, engine: Engine) -> None:
        self.population, self.engine = population, engine
        self.emits = not isinstance(population, Reduction)

    def start(self, batch: int) -> Any:
        """Return the state before the first frame."""
        return self.population.start(batch)

    def copy(self, state: Any) -> Any:
        """Return a state that does not change when the rule advances again."""
        return state

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Update by one frame.

        Parameters
        ----------
        state : what `start` or the last call returned
        total : array, shape (batch, drive_size)
            Sum of the drives, which the rule may overwrite.

        Returns
        -------
        state
        messages : array, shape (batch, size)
        saturations : pairs of place and count
        """
        drive = self.engine.numpy(total).astype(np.int64)
        state, messages, counts = self.population.update(state, drive)
        place = self.population.place
        named = [(f"{place}/{name}", number) for name, number in counts.items()]
        return state, self.engine.array(messages), named

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return what is recorded of a frame."""
        return messages

    def sent(self, state: Any) -> Any:
        """Return the events of a source inside the population, such as the terms of a series."""
        raise NotImplementedError


class IntegratorRule(Rule):
    """Integrators: the states change in place."""

    def __init__(self, population: Integrators, engine: Engine, width: int | None) -> None:
        super().__init__(population, engine)
        self._width, self.moves = width, width is not None
        self._limits = population.state.limit, population.message_shift, population.message.limit
        self._bias = None if population.bias is None else engine.array(population.bias)
        self._places = population.saturation_places

    def start(self, batch: int) -> Any:
        """Return states of zero."""
        return self.engine.zeros(batch, self.population.size)

    def copy(self, state: Any) -> Any:
        """Copy the states."""
        return self.engine.copy(state)

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Integrate; a delay line moves its states instead."""
        if self._width is None:
            state += total
            if self._bias is not None:
                state += self._bias
        else:
            total[:, self._width :] = state[:, : -self._width]
            state = total
        messages, limited, unsent = self.engine.emit(state, *self._limits)
        return state, messages, zip(self._places, (limited, unsent), strict=True)

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return the states."""
        return state


class PointwiseRule(Rule):
    """Units with a function, by a table or by lines."""

    def __init__(self, population: Pointwise, engine: Engine) -> None:
        super().__init__(population, engine)
        self._function, self._limit = engine.activation(population), population.drive.limit
        self._bias = None if population.bias is None else engine.array(population.bias)
        self._places = population.saturation_places

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Apply the function."""
        if self._bias is not None:
            total += self._bias
        limited = self.engine.saturate(total, self._limit)
        messages, unsent = self._function(total)
        return state, messages, zip(self._places, (limited, unsent), strict=True)


class OutputRule(Rule):
    """Outputs: limited sums."""

    def __init__(self, population: Output, engine: Engine) -> None:
        super().__init__(population, engine)
        self._bias = None if population.bias is None else engine.array(population.bias)

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Limit the sums."""
        if self._bias is not None:
            total += self._bias
        limited = self.engine.saturate(total, self.population.message.limit)
        return state, total, [(self.population.saturation_places[0], limited)]


class SeriesRule(Rule):
    """A Taylor series, on integers of NumPy or compiled."""

    def __init__(self, population: Series, engine: Engine) -> None:
        super().__init__(population, engine)
        self._step = engine.series(population)

    def advance(self, state: Any, total: Any) -> tuple[Any, Any, Counted]:
        """Apply all terms of all substeps; the counts already have whole places."""
        drive = self.engine.numpy(total).astype(np.int64)
        state, messages, counts = self._step(state, drive)
        return state, self.engine.array(messages), counts.items()

    def recorded(self, state: Any, messages: Any) -> Any:
        """Return the states."""
        return self.engine.array(state[0])

    def sent(self, state: Any) -> Any:
        """Return how many messages each neuron sent to the series itself."""
        return self.engine.array(state[2])


def make_rule(population: Population, network: IntegerNetwork, engine: Engine) -> Rule:
    """Return the rule of a population on an engine."""
    if isinstance(population, Integrators):
        return IntegratorRule(population, engine, memory_line(network, population))
    if isinstance(population, Pointwise):
        return PointwiseRule(population, engine)
    if isinstance(population, Output):
        return OutputRule(population, engine)
    if isinstance(population, Series):
        return SeriesRule(population, engine)
    return Rule(population, engine)
