"""The search of the Pareto front: it is reproducible and converges."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.studies.plan import digest
from lmu_deploy.studies.records import DONE, REFUSED, Record, Row, pareto
from lmu_deploy.studies.spec import read_spec

SPEC = {
    "network": "n.safetensors",
    "search": {
        "trials": 60,
        "population": 12,
        "seed": 3,
        "fields": {
            "quantize.message_bits": {"low": 2, "high": 16},
            "quantize.kernel_bits": {"low": 2, "high": 8},
            "quantize.realization": ["dense-incremental", "schur", "fir"],
            "chip.weight_bits": {"low": 1.0, "high": 8.0, "log": True},
        },
    },
}


def judged(trial, refused=False):
    """More bits are better and larger; one realization is as good at half the size."""
    q = trial.settings.quantize
    bits = q["message_bits"] * q["kernel_bits"]
    size = bits * (1 if q["realization"] == "schur" else 2)
    figures = {"metric_name": "accuracy", "metric": 1 - 1 / bits, "memory_bytes": size}
    if refused and q["realization"] == "fir":
        return Record("", REFUSED, error="no.")
    return Record(digest(dict(trial.varied)), DONE, figures)


def suggested(refused=False, **search):
    pytest.importorskip("optuna", reason="the extra [sweep] is not installed")
    from lmu_deploy.studies.run import ParetoSearch

    found = []
    searching = ParetoSearch(
        read_spec({**SPEC, "search": {**SPEC["search"], **search}}), "accuracy"
    )
    for generation in searching.generations():
        found.append(generation)
        searching.tell([judged(trial, refused) for trial in generation])
    return found


def test_suggestions_depend_on_the_seed_only():
    here = repr([dict(t.varied) for g in suggested() for t in g])
    assert here == repr([dict(t.varied) for g in suggested() for t in g])
    assert here != repr([dict(t.varied) for g in suggested(seed=4) for t in g])
    source = (
        f"import sys, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('m', {__file__!r})\n"
        f"m = importlib.util.module_from_spec(spec); spec.loader.exec_module(m)\n"
        f"print(repr([dict(t.varied) for g in m.suggested() for t in g]))"
    )
    # Another process has other hashes of texts, and so another order of sets.
    there = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_generations_have_the_size_of_the_population():
    assert [len(g) for g in suggested(trials=30)] == [12, 12, 6]
    assert [len(g) for g in suggested(trials=1)] == [1]


def test_later_generations_are_closer_to_the_front():
    first, *_, last = suggested(trials=120)
    share = [sum(t.varied["quantize.realization"] == "schur" for t in g) for g in (first, last)]
    assert share[1] > share[0]
    assert share[1] >= 9


def test_refused_trials_do_not_stop_the_search():
    trials = list(itertools.chain(*suggested(refused=True)))
    assert len(trials) == 60
    late = [t.varied["quantize.realization"] for t in trials[-12:]]
    assert late.count("fir") < 6


def test_suggestions_are_within_their_ranges():
    for trial in itertools.chain(*suggested()):
        varied = trial.varied
        assert varied["quantize.message_bits"] in range(2, 17)
        assert isinstance(varied["quantize.message_bits"], int)
        assert 1.0 <= varied["chip.weight_bits"] <= 8.0
        assert trial.settings.quantize["realization"] == varied["quantize.realization"]


def test_a_fractional_step_of_integers_is_refused():
    fields = {"seed": {"low": 0, "high": 9, "step": 0.5}}
    with pytest.raises(InputError, match=r"step is 0\.5"):
        suggested(fields=fields)


def rows(pairs, metric="accuracy"):
    trial = read_spec({"network": "n.safetensors", "grid": {"seed": [1]}}).trial({})
    return [
        Row(trial, Record(str(i), DONE, {"metric_name": metric, "metric": a, "memory_bytes": b}))
        for i, (a, b) in enumerate(pairs)
    ]


PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25)


@given(PAIRS, st.sampled_from(["accuracy", "nrmse"]))
def test_the_front_has_the_nondominated_trials(pairs, metric):
    sign = 1 if metric == "accuracy" else -1

    def beaten(a, b):
        better = [(c, d) for c, d in pairs if sign * c >= sign * a and d <= b and (c, d) != (a, b)]
        return bool(better)

    points = pareto(rows(pairs, metric), ("metric", "memory_bytes"))
    assert [p.on_front for p in points] == [not beaten(a, b) for a, b in pairs]


def test_trials_with_different_metrics_have_no_front():
    mixed = rows([(0.9, 10)]) + rows([(0.1, 10)], "nrmse")
    assert pareto(mixed, ("metric", "memory_bytes")) == []
    assert pareto([], ("metric", "memory_bytes")) == []


def test_trials_without_a_figure_are_not_on_the_plot():
    assert pareto(rows([(0.9, None), (0.8, 4)]), ("metric", "memory_bytes"))[0].vertical == 0.8
