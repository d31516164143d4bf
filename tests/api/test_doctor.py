"""The doctor finds absent and broken libraries, and names and runs what repairs them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from lmu_deploy.api.doctor import Finding, examine, repair, requirement, to_table
from lmu_deploy.core.errors import InputError, RunError

doctor = sys.modules["lmu_deploy.api.doctor"]


def test_what_works_is_found_with_its_version():
    seen = []
    findings = examine(["numpy", "python"], progress=lambda *done: seen.append(done))
    assert [f.name for f in findings] == ["python", "numpy"]
    assert all(f.works and not f.problem and not f.commands for f in findings)
    assert findings[1].version == importlib.metadata.version("numpy")
    assert seen == [(1, 2), (2, 2)]


def test_lava_works_with_its_corrected_import_and_only_in_another_interpreter():
    if doctor._version("lava-nc") is None:
        pytest.skip("lava-nc is not installed")
    before = set(sys.modules)
    (finding,) = examine(["lava-nc"])
    assert finding == Finding("lava-nc", "0.10.0", True, "", "target lava")
    assert not [name for name in set(sys.modules) - before if name.startswith("lava.")]


def test_an_absent_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    (finding,) = examine(["onnx"])
    assert not finding.works
    assert finding.problem == "absent"
    assert finding.version is None
    (command,) = finding.commands
    assert command[:4] == (sys.executable, "-m", "pip", "install")
    assert requirement("onnx") in command
    assert finding.advice.startswith("python -m pip install 'onnx>=")


def test_lava_is_installed_without_its_requirement_of_an_older_python(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    (finding,) = examine(["lava-nc"])
    words = finding.advice.replace("'", "").split()
    assert "lava-nc==0.10.0" in words
    if sys.version_info >= (3, 11):
        assert {"--no-deps", "--ignore-requires-python"} <= set(words)
        assert {"asteval", "networkx", "scikit-learn", "scipy"} <= {
            word.split(">")[0].split("=")[0] for word in finding.commands[1]
        }


def test_a_library_that_cannot_be_imported_is_broken(monkeypatch, tmp_path):
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('half a wheel')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = examine(["matplotlib"])
    assert not finding.works
    assert finding.problem == "ImportError: half a wheel"
    assert finding.commands


def test_a_missing_compiler_is_found(monkeypatch):
    if doctor._version("brian2") is None:
        pytest.skip("brian2 is not installed")
    monkeypatch.setenv("CXX", "no-such-compiler")
    (finding,) = examine(["c++ compiler"])
    assert not finding.works
    assert "no-such-compiler" in finding.problem
    assert "apt-get install g++" in finding.advice
    assert finding.commands == ()


def test_a_crash_while_importing_is_a_finding(monkeypatch):
    crash = doctor.Library("numpy", "import os; os.abort()", "everything")
    monkeypatch.setattr(doctor, "LIBRARIES", (crash,))
    (finding,) = examine()
    assert not finding.works
    assert finding.problem


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="cannot check 'nump'"):
        examine(["nump"])


def test_repair_runs_each_command_once_and_reports_failure(capfd):
    good = (sys.executable, "-c", "print('repaired')")
    bad = (sys.executable, "-c", "raise SystemExit(3)")
    broken = Finding("a", None, False, "absent", "b", (good, good), "")
    repair([broken, broken, Finding("c", "1", True, "", "d")])
    assert capfd.readouterr().out == "repaired\n"
    with pytest.raises(RunError, match="failed with exit code 3"):
        repair([Finding("a", None, False, "absent", "b", (bad,), "")])


def test_the_commands_are_ones_that_pip_understands(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    for finding in examine(["lava-nc", "torch"]):
        for command in finding.commands:
            offline = [*command, "--dry-run", "--no-index", "--find-links", "nowhere"]
            done = subprocess.run(offline, capture_output=True, text=True, check=False)
            assert "no such option" not in done.stderr
            assert "Invalid requirement" not in done.stderr


def test_the_table_has_a_row_a_finding():
    rows = to_table([Finding("a", None, False, "absent", "b", (), "do it")])
    assert rows[1] == ("a", "-", "no: absent", "b", "do it")
    assert len(rows[0]) == len(rows[1])
