"""What surrounds a command: warnings as errors, terminals, editors, scripts without a guard."""

import os
import subprocess
import sys
from multiprocessing import spawn

import numpy as np
import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.studies.workers import _script_left_alone
from lmu_deploy.training.config import read_toml


def lmu_deploy(*arguments, **environment):
    command = [sys.executable, "-c", "from lmu_deploy.cli import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


def test_paths_print_on_terminals_without_their_letters(tmp_path):
    out = tmp_path / "netz \u00fc.safetensors"
    done = lmu_deploy("report", out, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 2
    assert b"netz \\xfc.safetensors" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_lava_worker_starts_where_warnings_are_errors(tmp_path):
    pytest.importorskip("lava", reason="target lava")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "targets.lava.worker", str(tmp_path / "absent")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RuntimeWarning" not in done.stderr


def test_settings_of_a_windows_editor_are_read(tmp_path):
    file = tmp_path / "BOM.TOML"
    file.write_bytes(b"\xef\xbb\xbfepochs = 1\r\nbatch_size = 20\r\n")
    assert read_toml(file) == {"epochs": 1, "batch_size": 20}
    file.write_bytes("epochs = 1".encode("utf-16"))
    with pytest.raises(InputError, match="is not a text file; give a TOML file of settings"):
        read_toml(file)


def test_new_processes_do_not_run_the_script_again(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    assert "init_main_from_path" in spawn.get_preparation_data("one")
    with _script_left_alone():
        assert not {"init_main_from_path", "init_main_from_name"} & set(
            spawn.get_preparation_data("two")
        )
    assert main.__file__ == "script.py"


def test_data_of_upper_case_suffix_one_step_and_huge_labels(tmp_path):
    from lmu_deploy.tasks.dataset import Dataset

    rng = np.random.default_rng(0)
    file = tmp_path / "A.NPZ"
    labels = 10**9 + np.arange(12) % 2
    with file.open("wb") as handle:
        x = rng.normal(size=(12, 1, 2))
        np.savez(handle, x_train=x, y_train=labels, x_test=x, y_test=labels)
    data = Dataset.from_task(str(file))
    assert data.classes == ("1000000000", "1000000001")
    assert data.test.x.shape == (12, 1, 2)
