"""Specs of sweeps: valid settings, their trials, and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.studies.plan import Planner
from lmu_deploy.studies.spec import flatten, grid_trials, merge, read_spec, with_setting

BASE = {"network": "n.safetensors", "task": "digits"}


def test_the_last_setting_of_a_grid_changes_fastest():
    spec = read_spec({**BASE, "grid": {"quantize": {"slices": [1, 2]}, "seed": [5, 6, 7]}})
    trials = grid_trials(spec)
    assert [tuple(t.varied.values()) for t in trials] == [
        (1, 5), (1, 6), (1, 7), (2, 5), (2, 6), (2, 7),
    ]  # fmt: skip
    assert [(t.settings.quantize["slices"], t.settings.seed) for t in trials] == [
        tuple(t.varied.values()) for t in trials
    ]


def test_every_part_of_the_chain_can_be_varied():
    names = {
        "task": ["digits"],
        "task.limit": [10],
        "network.file": ["a.safetensors"],
        "quantize.realization": ["schur"],
        "spike.neurons_per_state": [50],
        "chip.profile": ["loihi2"],
        "chip.weight_bits": [6],
        "calibration.samples": [100],
        "calibration.method": ["mse"],
        "target": ["integer"],
        "seed": [3],
    }
    (trial,) = grid_trials(read_spec({**BASE, "grid": names}))
    found = trial.settings
    assert (found.task.name, found.task.limit) == ("digits", 10)
    assert found.network.file == "a.safetensors"
    assert found.quantize == {"realization": "schur"}
    assert found.spike == {"neurons_per_state": 50}
    assert found.chip == {"profile": "loihi2", "weight_bits": 6}
    assert (found.calibration.samples, found.calibration.method) == (100, "mse")
    assert (found.target, found.seed) == ("integer", 3)


def test_the_value_default_removes_a_setting():
    spec = read_spec(
        {**BASE, "quantize": {"kernel_bits": 4}, "grid": {"quantize.kernel_bits": [6, "default"]}}
    )
    assert [t.settings.quantize for t in grid_trials(spec)] == [{"kernel_bits": 6}, {}]


def test_a_layer_of_a_training_can_be_varied():
    train = {"train": {"settings": {"layers": [{"kind": "lmu", "order": 4}]}}}
    spec = read_spec(
        {
            "task": "digits",
            "network": train,
            "grid": {"network.train.settings.layers.0.order": [2, 3]},
        }
    )
    orders = [t.settings.network.train.settings["layers"][0]["order"] for t in grid_trials(spec)]
    assert orders == [2, 3]
    assert train["train"]["settings"]["layers"][0]["order"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "either a table \\[grid\\] or a table \\[search\\]"),
        ({"grid": {}}, "grid is empty"),
        ({"grid": {"seed": 3}}, "grid.seed is 3; give a list"),
        ({"grid": {"seed": []}}, "give a list of values"),
        ({"grid": {"sead": [1]}}, "sead is no setting; known are task, network"),
        ({"grid": {"task.limmit": [1]}}, "task.limmit is no setting"),
        ({"grid": {"quantize.slizes": [1]}}, "quantize.slizes is no setting; known are slices"),
        ({"grid": {"quantize.profile": ["x"]}}, "quantize.profile .* called chip.profile"),
        ({"grid": {"spike.seed": [1]}}, "spike.seed is no setting; it is called seed"),
        ({"grid": {"chip.weigth_bits": [6]}}, "chip.weigth_bits is no setting"),
        ({"grid": {"seed": [-1]}}, "seed: .*greater than or equal to 0"),
        ({"grid": {"seed": [1]}, "nonsense": 1}, "nonsense is no setting"),
        ({"grid": {"seed": [1]}, "network": {}}, "either network.file or network.train"),
        ({"grid": {"seed.x": [1]}, "seed": 2}, "seed.x leads through 2"),
        ({"grid": {"seed": [1]}, "objectives": ["metric"]}, "two figures"),
        ({"grid": {"seed": [1]}, "objectives": ["metric", "joules"]}, "'joules' is no figure"),
        ({"grid": {f"chip.{n}": [1] * 100 for n in ("cores", "fan_in", "neurons")}}, "100000"),
        ({"search": {"trials": 3}}, "search.fields"),
        ({"search": {"trials": 3, "fields": {"seed": 4}}}, "search.fields.seed is 4"),
        ({"search": {"trials": 3, "fields": {"seed": {"low": 4, "high": 4}}}}, "low < high"),
        ({"search": {"trials": 0, "fields": {"seed": [1]}}}, "trials"),
        ({"search": {"trials": 3, "gens": 2, "fields": {"seed": [1]}}}, "gens is no setting"),
    ],
)
def test_errors_name_the_invalid_setting(change, message):
    with pytest.raises(InputError, match=message):
        grid_trials(read_spec({**BASE, **change}))


def test_files_that_are_not_specs_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_spec(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("grid = ")
    with pytest.raises(InputError, match="is not TOML"):
        read_spec(tmp_path / "bad.toml")


def test_paths_are_relative_to_the_spec(tmp_path):
    (tmp_path / "s.toml").write_text('network = "n.safetensors"\n[grid]\nseed = [1]\n')
    assert read_spec(tmp_path / "s.toml").folder == tmp_path


NAMES = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, max_size=3))


@given(st.dictionaries(NAMES, TREES, max_size=3), st.lists(NAMES, min_size=1, max_size=3))
def test_with_setting_changes_one_setting_only(tree, parts):
    name = ".".join(parts)
    before = flatten(tree, lambda _: False)
    if any(name.startswith(f"{other}.") for other in before):
        with pytest.raises(InputError, match="leads through"):
            with_setting(tree, name, 99)
        return
    after = flatten(with_setting(tree, name, 99), lambda _: False)
    assert after.pop(name) == 99
    assert after == {n: v for n, v in before.items() if n != name and not n.startswith(f"{name}.")}
    assert flatten(tree, lambda _: False) == before


def test_lists_are_merged_by_index():
    base = {"layers": [{"order": 4, "units": 10}, {"order": 5}], "epochs": 3}
    change = {"layers": {"1": {"order": 7}}, "epochs": 9}
    assert merge(base, change) == {
        "layers": [{"order": 4, "units": 10}, {"order": 7}],
        "epochs": 9,
    }
    with pytest.raises(InputError, match="'2' is no place in a list of 2"):
        merge(base, {"layers": {"2": {"order": 7}}})


EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples" / "sweeps").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_planned(path):
    """Every trial of every example has a job: its files, settings, target and chip are there."""
    spec = read_spec(path)
    trials = [spec.trial({})] if spec.search else grid_trials(spec)
    planner = Planner(spec.folder)
    jobs = [planner.job(trial.settings) for trial in trials]
    assert len({job.key for job in jobs}) == len(trials)
