"""A search of the Pareto front: NSGA-II, one generation after the other.

K. Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on
Evolutionary Computation 6(2), 2002, as Optuna has it. A generation is suggested at once and judged
whole before the next, in the order in which it was suggested. So what is suggested depends on the
seed and on results alone, never on which worker was faster, and a search that is started again
asks for the same trials, of which the finished ones are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lmu_deploy.errors import InputError, MissingDependencyError
from lmu_deploy.sweeping.figures import METRIC_NAME, grows
from lmu_deploy.sweeping.records import DONE, Record
from lmu_deploy.sweeping.spec import Range, Spec, Trial


class ParetoSearch:
    """Suggests trials of a spec, generation by generation.

    Parameters
    ----------
    spec : Spec
        With a search.
    metric_name : str
        The task's metric, which says which way it is better.
    """

    def __init__(self, spec: Spec, metric_name: str) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingDependencyError(
                f"searches need optuna ({error}); run: pip install 'lmu-deploy[sweep]'"
            ) from error
        assert spec.search is not None
        self._spec, self._search = spec, spec.search
        self._metric_name = metric_name
        self._space = {
            name: _distribution(optuna.distributions, name, field)
            for name, field in self._search.fields.items()
        }
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            directions=[
                "maximize" if grows(name, metric_name) else "minimize" for name in spec.objectives
            ],
            sampler=optuna.samplers.NSGAIISampler(
                population_size=min(self._search.population, max(2, self._search.trials)),
                seed=self._search.seed,
            ),
        )
        self._failed = optuna.trial.TrialState.FAIL
        self._asked: list[Any] = []

    def generations(self) -> Iterator[list[Trial]]:
        """Give one generation after the other; `tell` of each before asking for the next."""
        left = self._search.trials
        while left > 0:
            size = min(left, self._search.population)
            self._asked = [self._study.ask(self._space) for _ in range(size)]
            yield [self._trial(asked.params) for asked in self._asked]
            left -= size

    def tell(self, records: Sequence[Record]) -> None:
        """Judge the generation that was given last; records in its order."""
        for asked, record in zip(self._asked, records, strict=True):
            values: list[Any] = [record.figures.get(name) for name in self._spec.objectives]
            same = record.figures.get(METRIC_NAME) == self._metric_name
            if record.status == DONE and same and None not in values:
                self._study.tell(asked, values)
            else:
                self._study.tell(asked, state=self._failed)

    def _trial(self, suggested: dict[str, Any]) -> Trial:
        varied = {}
        for name, value in suggested.items():
            field = self._search.fields[name]
            varied[name] = value if isinstance(field, Range) else field[value]
        return self._spec.trial(varied)


def _distribution(kinds: Any, name: str, field: Range | list[Any]) -> Any:
    """Give Optuna's name for a field; choices are suggested by their place, so may be anything."""
    if isinstance(field, list):
        return kinds.CategoricalDistribution(list(range(len(field))))
    whole = isinstance(field.low, int) and isinstance(field.high, int)
    if whole and field.step is not None and not isinstance(field.step, int):
        raise InputError(f"search.fields.{name}: step is {field.step}; give a whole number.")
    if whole:
        return kinds.IntDistribution(field.low, field.high, field.log, field.step or 1)
    return kinds.FloatDistribution(field.low, field.high, field.log, field.step)
