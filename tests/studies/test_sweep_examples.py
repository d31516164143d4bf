"""The first trial of every example sweep runs, at reduced size."""

from pathlib import Path

import pytest

from lmu_deploy.studies.plan import Planner, Training
from lmu_deploy.studies.records import DONE, make_sweep_folder
from lmu_deploy.studies.spec import read_spec
from lmu_deploy.studies.trial import run_trial, train_network

SPECS = sorted((Path(__file__).resolve().parents[2] / "examples" / "sweeps").glob("*.toml"))
TOY = {
    "digits-analog": {"task.limit": 1, "spike.neurons_per_state": 10, "calibration.samples": 5},
    "digits-training": {"task.limit": 50, "network.train.settings.epochs": 1},
}
"""Settings that reduce the size of trials, by spec; the others run on 50 samples."""


def first_trial(spec):
    """The first choice of everything that varies."""
    if spec.grid is not None:
        return {name: choices[0] for name, choices in spec.grid.items()}
    fields = spec.search.fields
    return {n: c[0] if isinstance(c, list | tuple) else c.high for n, c in fields.items()}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_first_trial_of_an_example_runs(path, tmp_path):
    spec = read_spec(path)
    smaller = TOY.get(path.stem, {"task.limit": 50})
    if path.stem == "digits-analog":
        pytest.importorskip("brian2", reason="brian2 (the extra brian2) is absent")
    trial = spec.trial({**first_trial(spec), **smaller})
    job = Planner(spec.folder).job(trial.settings)
    trained = None
    if isinstance(job.network, Training):
        pytest.importorskip("lightning", reason="lightning (the extra train) is absent")
        make_sweep_folder(tmp_path / "out")
        trained = train_network(job.network, tmp_path / "out")
    record = run_trial(job, trained)
    assert record.status == DONE, record.error
    assert all(record.figures[name] is not None for name in spec.objectives)


def test_all_settings_of_the_examples_are_valid():
    assert {path.stem for path in SPECS} >= {"digits-analog", "digits-training", "digits-energy"}
    for path in SPECS:
        spec = read_spec(path)
        for name in spec.grid or {}:
            for choice in spec.grid[name]:
                spec.trial({**first_trial(spec), name: choice})
