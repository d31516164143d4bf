"""The sweep command: tables, plot, scheduler, searches and failed trials."""

from __future__ import annotations

import csv
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lmu_deploy.api.sweep import sweep
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.files import save
from lmu_deploy.core.network import Hidden, LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.studies import workers as workers_module
from lmu_deploy.studies.plot import draw
from lmu_deploy.studies.records import make_sweep_folder
from lmu_deploy.studies.run import Sweep, Workers
from lmu_deploy.studies.spec import read_spec

distributed = pytest.importorskip("distributed", reason="the extra [sweep] is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [sweep] is not installed")
pytestmark = pytest.mark.xdist_group("sweep")


@pytest.fixture(scope="module")
def address():
    """A running scheduler with a worker of two threads, reached by TCP as one elsewhere."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://",
        dashboard_address="localhost:0",
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


@pytest.fixture
def spec(tmp_path):
    """A spec file over a small network and data of its own."""
    rng = np.random.default_rng(0)
    hidden = Hidden(rng.normal(size=(3, 4)), None, None, None, "tanh")
    layer = LMULayer(rng.normal(size=(2, 1)), None, None, None, Memory.legendre(3, 5.0), hidden)
    save(LMUNetwork((layer,), Readout(rng.normal(size=(4, 3)), None)), tmp_path / "n.safetensors")
    arrays = {f"x_{part}": rng.normal(size=(40, 5, 2)) for part in ("train", "test")}
    np.savez(tmp_path / "own.npz", y_train=np.arange(40) % 3, y_test=np.arange(40) % 3, **arrays)

    def write(text: str):
        path = tmp_path / "spec.toml"
        path.write_text(f'task = "own.npz"\nnetwork = "n.safetensors"\n{text}')
        return path

    return write


GRID = "[grid]\nquantize.message_bits = [3, 12, 40]\nquantize.slices = [1, 2]\n"


def test_a_grid_on_a_scheduler_given_by_address(spec, address, tmp_path):
    out = tmp_path / "out"
    result = sweep(spec(GRID), out=out, scheduler=address)
    assert [r.record.status for r in result.rows] == ["done"] * 4 + ["refused"] * 2
    assert "message_bits is 40" in result.rows[-1].record.error
    assert result.done == 4
    assert result.found == 0
    written = ["pareto.svg", "results.csv", "results.parquet", "sweep.json"]
    assert sorted(p.name for p in result.files) == written

    table = parquet.read_table(out / "results.parquet").to_pydict()
    summary = json.loads((out / "sweep.json").read_text())
    assert summary["columns"] == table
    assert [Path(task).name for task in summary["tasks"]] == ["own.npz"]
    assert summary["varied"] == ["quantize.message_bits", "quantize.slices"]
    assert summary["objectives"] == ["metric", "memory_bytes"]
    assert summary["more_is_better"] == [True, False]
    front = [result.rows[number] for number in summary["front"]]
    assert front == [row for row in result.rows if row in [p.row for p in result.front]]
    assert table["quantize.message_bits"] == [3, 3, 12, 12, 40, 40]
    assert table["metric"][4:] == [None, None]
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, values in table.items():
        assert [r[name] for r in rows] == ["" if v is None else str(v) for v in values]
    assert {p.stem for p in (out / "trials").glob("[!.]*.json")} == set(table["trial"])

    # The same again runs nothing, on no scheduler; another value of the grid runs itself alone.
    again = sweep(spec(GRID), out=out, scheduler="tcp://127.0.0.1:9")
    assert again.found == 6
    assert again.columns == result.columns
    more = sweep(spec(GRID.replace("40", "40, 6")), out=out, scheduler=address)
    assert (more.found, len(more.rows)) == (6, 8)
    with distributed.Client(address) as client:  # the cluster is not ours to stop
        assert client.submit(sum, [1, 2]).result() == 3


def test_records_of_workers_without_the_folder_are_written(spec, address, tmp_path):
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    make_sweep_folder(seen)
    with Workers(unseen, address, None) as pool:
        rows = Sweep(read_spec(spec("[grid]\nseed = [0, 1]\n")), seen, pool).run()
    assert len(list((seen / "trials").glob("[!.]*.json"))) == len(rows) == 2
    assert not unseen.exists()


def test_an_interrupted_search_resumes(spec, address, tmp_path):
    pytest.importorskip("optuna", reason="the extra [sweep] is not installed")
    text = (
        "[search]\ntrials = 18\npopulation = 6\n[search.fields]\n"
        "quantize.message_bits = { low = 3, high = 12 }\nquantize.slices = [1, 2, 3]\n"
    )
    whole = sweep(spec(text), out=tmp_path / "whole", scheduler=address)
    assert 6 <= len(whole.rows) <= 18
    assert whole.done == len(whole.rows)
    assert any(point.on_front for point in whole.front)
    # What a kill leaves: some of the records, in no order of its own.
    part = tmp_path / "part"
    make_sweep_folder(part)
    for number, path in enumerate(sorted((tmp_path / "whole" / "trials").glob("[!.]*.json"))):
        if number % 3:
            (part / "trials" / path.name).write_bytes(path.read_bytes())
    kept = len(list((part / "trials").glob("[!.]*.json")))
    resumed = sweep(spec(text), out=part, scheduler=address)
    assert resumed.found == kept
    deterministic = {k: v for k, v in resumed.columns.items() if k != "seconds"}
    assert deterministic == {k: v for k, v in whole.columns.items() if k != "seconds"}


def test_settings_that_a_target_ignores_add_no_trial(spec, address, tmp_path):
    text = 'target = "reference"\n[grid]\nquantize.slices = [1, 2]\n'
    result = sweep(spec(text), out=tmp_path / "out", scheduler=address)
    assert len(result.rows) == 2
    assert result.rows[0].record == result.rows[1].record


def test_two_targets_in_one_sweep(spec, address, tmp_path):
    text = 'quantize = { slices = 1 }\n[grid]\ntarget = ["reference", "integer", "nowhere"]\n'
    result = sweep(spec(text), out=tmp_path / "out", scheduler=address)
    assert [row.record.status for row in result.rows] == ["done", "done", "refused"]
    assert result.columns["violations"] == [None, 0, None]


def test_a_sweep_without_a_valid_trial_starts_no_cluster(spec, tmp_path):
    text = 'target = "nowhere"\n[grid]\nseed = [1, 2]\n'
    with pytest.raises(InputError, match="no trial can start: unknown target 'nowhere'"):
        sweep(spec(text), out=tmp_path / "new" / "out", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "new").exists()


def test_an_absent_scheduler_is_an_error(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "_SECONDS_FOR_AN_ANSWER", 1)
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        sweep(spec("[grid]\nseed = [1]\n"), out=tmp_path / "out", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="no scheduler answers"):
        sweep(spec("[grid]\nseed = [1]\n"), out=tmp_path / "mine", scheduler="tcp://127.0.0.1:9")
    assert (tmp_path / "mine").is_dir()


class Broken:
    """A future whose job ended in an error of dask's."""

    def __init__(self, error):
        self.error = error

    def result(self):
        raise self.error


def test_errors_of_dask_become_failed_records(monkeypatch, tmp_path):
    last = SimpleNamespace(address="tcp://x:1")
    errors = {
        Broken(distributed.KilledWorker("t", last, 4)): "its worker died",
        Broken(ModuleNotFoundError("no lmu_deploy")): "no lmu_deploy",
    }
    jobs = iter(errors)
    monkeypatch.setattr(distributed, "as_completed", list)
    pool = Workers(tmp_path, "tcp://x:1", None)
    monkeypatch.setattr(pool, "_submit_job", lambda job: next(jobs))
    found = list(pool.run([SimpleNamespace(key="j"), SimpleNamespace(key="k")]))
    assert [(record.key, record.status) for record in found] == [("j", "failed"), ("k", "failed")]
    assert all(text in record.error for record, text in zip(found, errors.values(), strict=True))
    for error in (distributed.CancelledError("k"), distributed.comm.CommClosedError("gone")):
        with pytest.raises(RunError, match="the connection to the scheduler was lost"):
            workers_module._result(Broken(error))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 2, "scheduler": "tcp://x:1"}, "leave one out"),
    ],
)
def test_invalid_numbers_of_workers_are_refused(spec, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        sweep(spec("[grid]\nseed = [1]\n"), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_plot_has_a_mark_for_each_trial(spec, address, tmp_path):
    out = tmp_path / "out"
    result = sweep(spec(GRID), out=out, scheduler=address)
    root = ElementTree.parse(out / "pareto.svg").getroot()
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 4
    front = [c for c in circles if c.get("class") == "front"]
    assert len(front) == len(result.front)
    for circle in circles:
        assert 76 <= float(circle.get("cx")) <= 736
        assert 40 <= float(circle.get("cy")) <= 424
    texts = " ".join(root.itertext())
    assert "memory bytes" in texts
    assert "quantize.slices = 1" in texts
    # Farther right is more memory, farther up is better.
    by_memory = sorted(result.front, key=lambda p: p.horizontal)
    assert [p.vertical for p in by_memory] == sorted(p.vertical for p in by_memory)


def test_the_plot_escapes_labels_and_hints(spec, address, tmp_path):
    result = sweep(spec("[grid]\nseed = [1]\n"), out=tmp_path / "out", scheduler=address)
    text = draw(result.front, ("<a&b>", "c"), {0: '"<script>"'})
    assert "<script>" not in text
    ElementTree.fromstring(text)


def test_the_command_prints_the_results(spec, address, tmp_path, monkeypatch, capsys):
    from lmu_deploy.cli import main

    out = tmp_path / "out"
    arguments = ["lmu-deploy", "sweep", spec(GRID), "--out", out, "--scheduler", address]
    monkeypatch.setattr(sys, "argv", [str(a) for a in arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out_text, progress = capsys.readouterr()
    assert "6 trials: 4 done, 0 of them earlier" in out_text
    assert "on the Pareto front: accuracy " in out_text
    assert (
        "refused: {'quantize.message_bits': 40, 'quantize.slices': 1}: message_bits is 40"
        in out_text
    )
    assert str(out / "results.parquet") in out_text
    assert "sweep: 6 trials" in progress
    record = json.loads(next((out / "trials").glob("[!.]*.json")).read_text())
    assert record["versions"]["lmu-deploy"]
