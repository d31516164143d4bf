"""Yields and sweeps in a report: counts, plots, and robustness.json."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmu_deploy.api.report import write_report
from lmu_deploy.core.errors import InputError
from lmu_deploy.core.metrics import reached_by
from lmu_deploy.fidelity.schema import Fit
from lmu_deploy.fidelity.store import read_fidelity
from lmu_deploy.report.plots.losses import steps
from lmu_deploy.report.plots.trials import Trial, Varied, bin_edges, front_plot
from lmu_deploy.report.robustness_file import YieldStudy, forget_robustness, gather, read_robustness
from lmu_deploy.report.series import assign
from lmu_deploy.report.wording import good, good_chips, on_many_chips


def study(values, **changes):
    given = {
        "task": "digits",
        "metric": "accuracy",
        "profile": "generic-analog",
        "samples": 100,
        "steps": 8,
        "reference": 0.98,
        "ideal": 0.97,
        "values": {"none": values, "dynamic": values},
    }
    return YieldStudy.model_validate({**given, **changes})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]),
    st.sampled_from(["accuracy", "nrmse"]),
)
def test_a_share_of_the_chips_reaches_it_and_no_better(counts, share, metric):
    values = [n / 50 for n in counts]
    reached = reached_by(values, share, metric)
    sign = 1.0 if metric == "accuracy" else -1.0
    as_good = sum(sign * v >= sign * reached for v in values)
    better = sum(sign * v > sign * reached for v in values)
    assert as_good >= share * len(values) - 1e-9
    assert better < share * len(values)


def test_chips_with_acceptable_loss_are_counted():
    found = study([0.98, 0.97, 0.96, 0.99, 0.9699])
    assert good_chips(found, "dynamic") == 3
    assert good(found, "none").startswith("3 of 5 virtual chips are at most 1 point below float")
    errors = study([0.10, 0.11, 0.12], metric="nrmse", reference=0.05, ideal=0.1)
    assert good_chips(errors, "dynamic") == 2
    assert "1.1 times the NRMSE of an ideal chip" in good(errors, "dynamic")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 359), min_size=1, max_size=30))
def test_every_bin_holds_equally_many_accuracies(counts):
    values = np.array(counts) / 359
    edges = bin_edges(values, "accuracy", 359)
    possible = np.arange(360) / 359
    inside = possible[(possible > edges[0]) & (possible < edges[-1])]
    each = np.histogram(inside, edges)[0]
    assert np.histogram(values, edges)[0].sum() == len(values)
    assert len(each) <= 24
    # The last bins may reach beyond all samples, where no accuracy can be.
    assert set(each[edges[1:] < 1.0].tolist()) <= {each[0]}


def test_the_best_trial_at_each_value():
    found = Varied("bits", [8, 4, 8, 4], [0.9, 0.7, 0.8, 0.75])
    assert found.choices == [4, 8]
    assert found.best(more=True) == [0.75, 0.9]
    assert found.best(more=False) == [0.7, 0.8]
    names = Varied("form", ["b", None, "a", "b"], [1.0, 2.0, 3.0, 4.0])
    assert names.choices == ["b", None, "a"]
    assert names.best(more=True) == [4.0, 2.0, 3.0]


@pytest.mark.parametrize("spread", [3.0, 100.0, 1e5])
def test_the_front_is_described(spread):
    trials = [Trial(0.9, 100.0, False), Trial(0.98, 100.0 * spread, True), Trial(0.95, 100.0, True)]
    plot = front_plot(0, assign(["x"])["x"], ("accuracy", "memory bytes"), trials)
    assert "3 trials, 2 on the Pareto front" in plot.title
    assert plot.description.startswith("On the front: 0.95 at 100, 0.98 at ")
    assert "memory bytes" in plot.svg()


def test_intervals_are_named():
    assert [steps(k) for k in range(4)] == ["1 step", "2 steps", "3 to 4 steps", "5 to 8 steps"]


@pytest.fixture
def folder(cases, folder_of):
    """A report of one chip: its drawings are not what is tested here."""
    return folder_of(cases["explained"], results=cases["explained"].results[-1:])


@pytest.fixture
def given_files(tmp_path, cases):
    """A file of `lmu-deploy yield` and a folder of `lmu-deploy sweep`."""
    where = tmp_path / "given"
    (where / "widths").mkdir(parents=True)
    (where / "yield.json").write_text(json.dumps(cases["explained"].yields[0]))
    (where / "widths" / "sweep.json").write_text(json.dumps(cases["explained"].sweeps[0]))
    return where / "yield.json", where / "widths"


def test_the_report_keeps_its_studies(folder, given_files):
    chips, widths = given_files
    first = write_report(folder, yields=[chips]).read_text()
    assert 'id="robustness"' in first
    assert "40 virtual chips" in first
    both = write_report(folder, sweeps=[widths]).read_text()
    assert "40 virtual chips" in both
    assert "Sweep widths" in both
    assert write_report(folder).read_text() == both
    forget_robustness(folder)
    assert 'id="robustness"' not in write_report(folder).read_text()


def test_the_verdict_counts_the_chips_of_its_own_profile(folder, given_files):
    gather(folder, "digits", [given_files[0]], [])
    beside, found = read_robustness(folder), read_fidelity(folder).targets["brian2"]
    for profile, said in (("generic-analog", 1), ("braindrop", 0)):
        fit = Fit(profile=profile, title="a chip", violations=[])
        target = found.model_copy(update={"fit": fit})
        assert len(on_many_chips(beside, "brian2", target)) == said
    assert on_many_chips(beside, "brian2", found.model_copy(update={"fit": None})) == []


def test_a_refused_trial_is_not_drawn(folder, given_files):
    gather(folder, "digits", [], [given_files[1]])
    (sweep,) = read_robustness(folder).sweeps
    assert len(sweep.done) == 23
    assert "23 of 24 trials could be run" in write_report(folder).read_text()


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            ["copy"],
            "is a sweep of task copy, but the report is of task digits; pass a sweep of digits",
        ),
        (
            ["copy", "digits"],
            "is a sweep of task copy and digits, but the report is of task digits",
        ),
        (["digits"], None),
        (None, None),  # made before sweeps recorded it
    ],
)
def test_a_sweep_of_another_task_is_refused(tasks, said, tmp_path, given_files):
    widths = given_files[1]
    made = json.loads((widths / "sweep.json").read_text())
    recorded = made if tasks is None else made | {"tasks": tasks}
    (widths / "sweep.json").write_text(json.dumps(recorded))
    if said is None:
        gather(tmp_path, "digits", [], [widths])
        assert read_robustness(tmp_path).sweeps[0].tasks == (tasks or [])
        return
    with pytest.raises(InputError, match=said):
        gather(tmp_path, "digits", [], [widths])
    assert not (tmp_path / "robustness.json").exists()


def test_own_data_are_compared_by_file_name(tmp_path, given_files):
    chips, widths = given_files
    for path, change in (
        (widths / "sweep.json", {"tasks": ["/data/far/own.npz"]}),
        (chips, {"task": "near/own.npz"}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    gather(tmp_path, "own.npz", [chips], [widths])
    with pytest.raises(
        InputError, match=r"of task near/own\.npz, but the report is of task other\.npz"
    ):
        gather(tmp_path, "other.npz", [chips], [])
    with pytest.raises(
        InputError, match=r"of task /data/far/own\.npz, but the report is of task digits"
    ):
        gather(tmp_path, "digits", [], [widths])


def test_files_of_another_format_are_refused(folder, given_files, tmp_path):
    chips, widths = given_files
    with pytest.raises(InputError, match="create it with lmu-deploy yield"):
        write_report(folder, yields=[tmp_path / "none.json"])
    with pytest.raises(InputError, match="create it with lmu-deploy sweep"):
        write_report(folder, sweeps=[tmp_path])
    with pytest.raises(InputError, match="does not have the format that lmu-deploy yield"):
        write_report(folder, yields=[widths / "sweep.json"])
    with pytest.raises(InputError, match="of task digits, but the report is of task copy"):
        gather(folder, "copy", [chips], [])
    for change in ({"front": [99]}, {"columns": {"status": ["failed"]}, "front": []}):
        broken = {**json.loads((widths / "sweep.json").read_text()), **change}
        (widths / "sweep.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match="has no completed trial"):
            write_report(folder, sweeps=[widths])
    (folder / "robustness.json").write_text("{")
    with pytest.raises(InputError, match="does not have the format that lmu-deploy report"):
        write_report(folder)
