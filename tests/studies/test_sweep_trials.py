"""A trial equals the single commands, and its hash covers what determines the result."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import lmu_deploy
from converters.options import SpikeOptions
from lmu_deploy.api.quantize import quantize
from lmu_deploy.api.run import run
from lmu_deploy.core.errors import InputError, RunError
from lmu_deploy.core.files import save
from lmu_deploy.core.graph.network import Network
from lmu_deploy.core.network import LMULayer, LMUNetwork, Memory, Readout
from lmu_deploy.fidelity.measures.energy import costs_of
from lmu_deploy.hardware.placement import place
from lmu_deploy.hardware.profile import load_profile
from lmu_deploy.studies import trial as trial_module
from lmu_deploy.studies.plan import Planner, Training
from lmu_deploy.studies.records import (
    DONE,
    FAILED,
    REFUSED,
    Record,
    Row,
    make_sweep_folder,
    pareto,
    read_record,
    write_record,
)
from lmu_deploy.studies.spec import Trial, read_spec
from lmu_deploy.studies.trial import FailedTraining, run_and_record, run_trial, train_network
from lmu_deploy.studies.workers import locked
from lmu_deploy.tasks.base import get_task
from targets.base import get_target

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "models" / "digits.safetensors"


def planned(folder=None, **values):
    """The job of one trial on the digits network, with a limit that keeps it quick."""
    base = {"network": str(DIGITS), "task": {"name": "digits", "limit": 40}}
    spec = read_spec({**base, "grid": {"seed": [0]}, **values})
    return Planner(folder or Path.cwd()).job(spec.trial({}).settings)


def test_figures_equal_those_of_quantize_and_deploy():
    options = {"slices": 1, "kernel_bits": 6}
    record = run_trial(planned(quantize=options, calibration={"samples": 512}))
    assert record.status == DONE, record.error
    network = quantize(DIGITS, **options)
    direct = run(network, target="integer", limit=40).summary()
    found = record.figures
    assert found["metric_name"] == direct["metric"]["name"] == "accuracy"
    assert found["metric"] == direct["metric"]["value"]
    assert [found["metric_low"], found["metric_high"]] == list(direct["metric"]["ci95"])
    assert found["agreement"] == direct["reference"]["agreement"]
    assert found["events_per_sample"] == direct["events"]["per_sample"]
    assert found["synops_per_sample"] == direct["synops"] / 40
    assert found["saturations"] == sum(direct["saturations"].values())
    assert found["cores"] == len(place(network, load_profile("loihi2")))
    assert found["violations"] == 0


def test_options_that_need_the_task_equal_those_of_quantize():
    record = run_trial(planned(quantize={"slices": 1, "sparsity_threshold": 0.1}))
    assert record.status == DONE, record.error
    network = quantize(DIGITS, slices=1, sparsity_threshold=0.1)
    direct = run(network, target="integer", limit=40).summary()
    assert record.figures["events_per_sample"] == direct["events"]["per_sample"]
    assert record.figures["metric"] == direct["metric"]["value"]
    wrong = run_trial(planned(quantize={"budget_kib": 3.0}, calibration={"samples": 100}))
    assert "calibration.samples is 100" in wrong.error


def test_spiking_networks_use_the_spike_options():
    settings = {"target": "spiking", "task": {"name": "digits", "limit": 1}}
    job = planned(**settings, spike={"neurons_per_state": 10}, calibration={"samples": 20})
    assert job.conversion.form == "loihi"
    assert job.conversion.profile.name == "loihi1"
    record = run_trial(job)
    assert record.status == DONE, record.error
    assert record.figures["events_per_sample"] > 0
    for change, message in [
        ({"spike": {"mismatch": 0.1}}, "spike.mismatch is no option for networks of form loihi"),
        ({"calibration": {"method": "static"}}, "calibrated in one way alone"),
    ]:
        with pytest.raises(InputError, match=message):
            planned(**{**settings, **change})
    analog = planned(target="brian2", chip={"mismatch": 0.3}, calibration={"method": "static"})
    assert analog.conversion.profile.mismatch.value == 0.3
    assert analog.conversion.options == SpikeOptions(calibration="static")


def test_figures_of_the_chip_change_the_result():
    wide, narrow = planned(), planned(chip={"neurons_per_core": 20, "weight_bits": 4})
    assert wide.key != narrow.key
    wide, narrow = run_trial(wide).figures, run_trial(narrow).figures
    assert narrow["cores"] > wide["cores"]
    assert narrow["weight_bytes"] < wide["weight_bytes"]


def test_calibration_settings_change_the_result():
    jobs = [
        planned(calibration={"samples": n, "method": m}) for n in (20, 200) for m in ("max", "mse")
    ]
    deviations = {run_trial(job).figures["deviation"] for job in jobs}
    assert len(deviations) == 4


def test_a_float_network_needs_no_conversion():
    record = run_trial(planned(target="reference"))
    assert record.status == DONE, record.error
    assert record.figures["agreement"] == 1.0
    assert record.figures["violations"] is None


def test_the_hash_covers_contents_and_not_paths(tmp_path):
    other = tmp_path / "copy.safetensors"
    other.write_bytes(DIGITS.read_bytes())
    assert planned(network=str(other)).key == planned().key
    assert planned(network="copy.safetensors", folder=tmp_path).key == planned().key
    network = lmu_deploy.load(DIGITS)
    save(dataclasses.replace(network, provenance={"a": "b"}), other)
    assert planned(network=str(other)).key != planned().key


def test_the_hash_covers_the_settings_that_change_the_result(monkeypatch):
    plain = planned().key
    assert planned(quantize={"slices": 2}).key == plain, "a default that is written out"
    assert planned(chip={"profile": "loihi2", "weight_bits": 8}).key == plain
    assert planned(spike={"neurons_per_state": 7}).key == plain, "no neurons on this target"
    changed = [
        {"quantize": {"slices": 3}},
        {"chip": {"weight_bits": 7}},
        {"calibration": {"samples": 511}},
        {"calibration": {"method": "mse"}},
        {"task": {"name": "digits", "limit": 41}},
        {"seed": 1},
        {"target": "reference"},
    ]
    keys = {planned(**change).key for change in changed}
    assert len(keys | {plain}) == len(changed) + 1
    monkeypatch.setattr("lmu_deploy.studies.plan.__version__", "99")
    assert planned().key not in keys | {plain}


def test_the_hash_covers_the_data(tmp_path):
    path = tmp_path / "own.npz"
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.normal(size=(20, 8, 8)) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(20) % 10 for part in ("train", "test")}
    np.savez(path, **arrays)
    first = planned(task=str(path)).key
    arrays["x_train"][0, 0, 0] += 1.0
    np.savez(path, **arrays)
    assert planned(task=str(path)).key != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantize": {"slices": 9}}, "slices is 9"),
        ({"quantize": {"message_bits": 30}}, "message_bits is 30"),
        ({"quantize": {"epochs": 3}}, "method ptq trains nothing"),
        ({"task": {"name": "psdigits"}}, "psdigits has 1 inputs"),
    ],
)
def test_impossible_trials_are_refused_and_recorded(tmp_path, change, message):
    make_sweep_folder(tmp_path)
    job = planned(**change)
    record = run_and_record(job, tmp_path)
    assert record.status == REFUSED
    assert message in record.error
    assert read_record(tmp_path, job.key) == record


@pytest.mark.parametrize("fault", [RunError("the chip is on fire"), ZeroDivisionError("oops")])
def test_failed_trials_are_run_again(tmp_path, monkeypatch, fault):
    def broken(*arguments, **options):
        raise fault

    make_sweep_folder(tmp_path)
    job = planned()
    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "judge", broken)
        record = run_and_record(job, tmp_path)
    assert record.status == FAILED
    assert str(fault) in record.error
    assert read_record(tmp_path, job.key) is None
    assert run_and_record(job, tmp_path).status == DONE


def test_a_finished_trial_is_not_run_again(tmp_path, monkeypatch):
    make_sweep_folder(tmp_path)
    job = planned()
    record = run_and_record(job, tmp_path)
    monkeypatch.setattr(trial_module, "judge", None)
    assert run_and_record(job, tmp_path) == record
    assert json.loads((tmp_path / "trials" / f"{job.key}.json").read_text())["inputs"] == job.inputs


def test_a_worker_of_another_version_is_an_error(monkeypatch):
    job = planned()
    monkeypatch.setattr(lmu_deploy, "__version__", "99")
    record = run_trial(job)
    assert record.status == FAILED
    assert "install one version everywhere" in record.error


def test_a_network_file_that_changed_is_an_error(tmp_path):
    path = tmp_path / "n.safetensors"
    path.write_bytes(DIGITS.read_bytes())
    network = dataclasses.replace(lmu_deploy.load(path), provenance={"x": "y"})
    save(network, path)
    job = planned(network=str(path))
    save(dataclasses.replace(network, provenance={}), path)
    record = run_trial(job)
    assert record.status == FAILED
    assert "has changed since" in record.error


def test_invalid_settings_stop_the_planning_of_a_trial():
    for change, message in [
        ({"target": "nowhere"}, "unknown target 'nowhere'"),
        ({"target": "integer/float"}, "does not run float"),
        ({"network": "absent.safetensors"}, "no such file"),
        ({"task": {"name": "nothing"}}, "unknown task"),
        ({"chip": {"profile": "generic-analog"}}, "digital"),
        ({"chip": {"mismatch": 0.1}}, "chip.mismatch is no figure of profile loihi2"),
        ({"chip": {"weight_bits": "many"}}, "give a number"),
    ]:
        with pytest.raises(InputError, match=message):
            planned(**change)


def test_trained_networks_are_saved_and_shared(tmp_path):
    pytest.importorskip("lightning", reason="the extra [train] is not installed")
    make_sweep_folder(tmp_path, "networks")
    train = {"settings": {"epochs": 1, "samples": 60, "layers": {"0": {"order": 3}}}}
    settings = {"network": {"train": train}, "target": "reference"}
    jobs = [planned(**settings, seed=seed) for seed in (0, 1)]
    training = jobs[0].network
    assert isinstance(training, Training)
    assert training == jobs[1].network
    assert training.config["layers"][0]["order"] == 3
    network = train_network(training, tmp_path)
    assert isinstance(network, Network)
    assert network.nodes[0].operator.memory.order == 3
    path = tmp_path / "networks" / f"{training.key}.safetensors"
    written = path.stat().st_mtime_ns
    again = train_network(training, tmp_path)
    assert path.stat().st_mtime_ns == written
    assert again.fingerprint() == network.fingerprint()
    assert run_trial(jobs[1], network).status == DONE
    other = planned(network={"train": {**train, "seed": 5}})
    assert other.network.key != training.key


def test_a_failed_training_is_a_row():
    job = planned()
    assert run_trial(job, FailedTraining("it diverged.", True)).status == REFUSED
    again = run_trial(job, FailedTraining("torch is absent.", False))
    assert (again.status, again.error) == (FAILED, "torch is absent.")


def test_a_damaged_record_is_an_error(tmp_path):
    make_sweep_folder(tmp_path)
    write_record(tmp_path, Record("k", DONE, {"metric": 1.0}))
    assert read_record(tmp_path, "k") == Record("k", DONE, {"metric": 1.0})
    path = tmp_path / "trials" / "k.json"
    for text in ("{", "[]", '{"key": "k"}'):
        path.write_text(text)
        with pytest.raises(RunError, match=r"k\.json"):
            read_record(tmp_path, "k")


def test_one_sweep_at_a_time_in_a_folder(tmp_path):
    pytest.importorskip("fcntl", reason="this system has no flock")
    with (
        locked(tmp_path),
        pytest.raises(InputError, match="another sweep is running"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_network_without_a_task_needs_task_name(tmp_path):
    layer = LMULayer(np.ones((8, 1)), None, None, None, Memory.legendre(2, 5.0), None)
    save(LMUNetwork((layer,), Readout(np.ones((2, 10)), None)), tmp_path / "n.safetensors")
    with pytest.raises(InputError, match="name one as task"):
        planned(network="n.safetensors", task={}, folder=tmp_path)


def test_energy_has_bounds_over_all_sources_and_of_each():
    record = run_trial(planned(quantize={"slices": 1}))
    network = quantize(DIGITS, slices=1)
    task, figures = get_task("digits"), record.figures
    inputs = task.load().test.inputs[:40]
    costs = costs_of(get_target("integer").run(network, inputs), network)
    assert (figures["energy_low"], figures["energy_high"]) == pytest.approx(costs.energy)
    assert (figures["latency_low"], figures["latency_high"]) == pytest.approx(costs.latency)
    assert {name.partition(".")[2] for name in figures if "energy_low." in name} == {
        *costs.energies
    }
    for source, estimate in costs.energies.items():
        low, high = figures[f"energy_low.{source}"], figures[f"energy_high.{source}"]
        assert (low, high) == pytest.approx(estimate.inference)
        assert figures["energy_low"] <= low <= high <= figures["energy_high"]
    float_run = run_trial(planned(target="reference"))
    assert float_run.status == DONE and float_run.figures["energy_high"] is None


def test_energy_objectives_need_a_known_source():
    def spec(name):
        return {"network": str(DIGITS), "grid": {"seed": [0]}, "objectives": ["metric", name]}

    assert read_spec(spec("energy_high.loihi")).objectives == ("metric", "energy_high.loihi")
    for name, message in [
        ("energy", "'energy' is no figure of a trial"),
        ("energy_low.loihi2", "names no source of energy_low, which is of arithmetic, braindrop"),
        ("latency_low.survey", "names no source of latency_low"),
        ("synapses.loihi", "names no source of synapses, which is of none"),
    ]:
        with pytest.raises(InputError, match=message):
            read_spec(spec(name))


def test_less_energy_is_better_and_trials_without_it_are_left_out():
    def row(key, metric, energy):
        figures = {"metric_name": "accuracy", "metric": metric}
        figures |= {} if energy is None else {"energy_high": energy}
        return Row(Trial({}, None), Record(key, DONE, figures, "", 1.0, {}, {}))

    rows = [row("a", 0.9, 2e-6), row("b", 0.8, 1e-6), row("c", 0.7, 3e-6), row("d", 0.9, None)]
    points = pareto(rows, ("metric", "energy_high"))
    assert [(p.row.record.key, p.on_front) for p in points] == [
        ("a", True), ("b", True), ("c", False)
    ]  # fmt: skip
