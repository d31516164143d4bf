"""Malicious and damaged files: each is refused with one sentence, and has no other effect."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converters.importers import import_file
from converters.keras_lmu.file import CONFIG, WEIGHTS
from converters.sandbox import process
from lmu_deploy.core.errors import InputError

h5py = pytest.importorskip("h5py", reason="h5py (the extra import) is absent")

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = Path(__file__).resolve().parents[2] / "fixtures/keras_lmu"
WHOLE = FIXTURES / "keras3-feedback.keras"


def repacked(path, change=None, extra=(), compression=zipfile.ZIP_STORED):
    """A .keras file whose entries `change` may replace, with `extra` entries."""
    with zipfile.ZipFile(WHOLE) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(name, content) if change else content)
        for name in extra:
            new.writestr(name, b"x")
    return path


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../evil", "..\\evil", "C:evil"])
def test_an_entry_that_leads_out_of_the_archive_is_refused(tmp_path, name):
    path = repacked(tmp_path / "a.keras", extra=[name])
    with pytest.raises(InputError, match="leads out of the archive"):
        import_file(path)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "ARRAY_BYTES", 2**21)

    def bomb(name, content):
        return bytes(2**24) if name == WEIGHTS else content

    path = repacked(tmp_path / "a.keras", bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="unpacks to more than 2097152 bytes"):
        import_file(path)


def test_an_oversized_configuration_is_not_parsed(tmp_path):
    def bomb(name, content):
        return b" " * (process.JSON_BYTES + 1) if name == CONFIG else content

    with pytest.raises(InputError, match=r"config\.json unpacks to more than"):
        import_file(repacked(tmp_path / "a.keras", bomb, compression=zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[]",
        b'{"class_name": ' + b"9" * 100_000 + b"}",
        b"\xff",
    ],
)
def test_malformed_json_is_refused(tmp_path, text):
    path = repacked(tmp_path / "a.keras", lambda n, c: text if n == CONFIG else c)
    with pytest.raises(InputError, match="JSON text is"):
        import_file(path)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_an_archive_that_lacks_an_entry_is_refused(tmp_path, name):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(WHOLE) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
    with pytest.raises(InputError, match=f"has no {name}"):
        import_file(path)


def weights_file(path, change):
    """A copy of Keras's weights in which `change` has changed something."""
    path.write_bytes((FIXTURES / "keras3-feedback.weights.h5").read_bytes())
    with h5py.File(path, "a") as file:
        change(file)
    return path


KERNEL = "layers/dense/vars/0"


def replace(file, make):
    del file[KERNEL]
    make(file)


def virtual(file):
    layout = h5py.VirtualLayout(shape=(5, 3), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(5, 3))
    file.create_virtual_dataset(KERNEL, layout)


def external(file):
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/x")


def soft(file):
    file[KERNEL] = h5py.SoftLink("/layers")


def stored_elsewhere(file):
    file.create_dataset(KERNEL, (5, 3), "f4", external=[("/etc/passwd", 0, 60)])


def compressed(file):
    file.create_dataset(KERNEL, data=np.zeros((5, 3), "f4"), compression="gzip")


def empty(file):
    file.create_dataset(KERNEL, data=h5py.Empty("f4"))


def absurd(file):
    file.create_dataset(KERNEL, (2**20, 2**20), "f4", chunks=(1, 1))


def large(file):
    file.create_dataset(KERNEL, (2**14, 2**14), "f4")


def texts(file):
    file[KERNEL] = np.array([b"a", b"b"])


def complex_numbers(file):
    file[KERNEL] = np.ones((5, 3), complex)


def integers(file):
    file[KERNEL] = np.ones((5, 3), int)


def infinite(file):
    file[KERNEL] = np.full((5, 3), np.inf, "f4")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (virtual, "lies in another file"),
        (external, "ExternalLink, which may lead out"),
        (soft, "SoftLink, which may lead out"),
        (stored_elsewhere, "lies in another file"),
        (compressed, "is compressed"),
        (empty, "is empty"),
        (absurd, "larger than the file"),
        (large, "larger than the file"),
        (texts, "has 1 weights in the file"),
        (complex_numbers, "has 1 weights in the file"),
        (integers, "weights must be real numbers"),
        (infinite, "NaN or infinite"),
    ],
)
def test_an_array_outside_the_file_or_compressed_is_refused(tmp_path, make, message):
    path = weights_file(tmp_path / "a.weights.h5", lambda file: replace(file, make))
    with pytest.raises(InputError, match=message):
        import_file(path, architecture=FIXTURES / "keras3-feedback.json")


def test_a_cyclic_group_is_refused(tmp_path):
    def ring(file):
        file["layers/ring"] = file["layers"]

    path = weights_file(tmp_path / "a.weights.h5", ring)
    with pytest.raises(InputError, match=r"deep; save it again|more than 10000 objects"):
        import_file(path, architecture=FIXTURES / "keras3-feedback.json")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_code_in_a_pytorch_file_is_not_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"more than weights.*torch\.save"):
        import_file(tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="pickle of Python, which could run any code"):
        import_file(tmp_path / "plain.pt", "pytorch-lmu")
    assert not (tmp_path / "evil").exists()


def test_a_tensor_that_repeats_one_number_is_not_copied(tmp_path):
    torch = pytest.importorskip("torch", reason="torch (the extra train) is absent")
    torch.save({"cell.e_x": torch.zeros(1).expand(2**30, 2**10)}, tmp_path / "wide.pt")
    with pytest.raises(InputError, match="bytes of weights, more than"):
        import_file(tmp_path / "wide.pt")


def test_a_compressed_pytorch_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1000))
    with pytest.raises(InputError, match="compressed, which PyTorch never does"):
        import_file(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", r"crashed \(exit code -6\)"),
        ("import sys; sys.exit(5)", r"crashed \(exit code 5\)"),
        ("import time; time.sleep(60)", "could not be read within 1 s"),
    ],
)
def test_a_reader_that_crashes_or_hangs_raises_one_error(monkeypatch, code, message):
    monkeypatch.setattr(process, "SECONDS", 1)

    def launch(reader, path, answer):
        run = subprocess.run([sys.executable, "-c", code], timeout=1, check=False)
        return run.returncode, b""

    monkeypatch.setattr(process, "launch", launch)
    with pytest.raises(InputError, match=message):
        import_file(FIXTURES / "keras3-feedback.h5")


def test_the_memory_of_the_reader_is_limited():
    code = (
        "from converters.sandbox.child import limit_resources; limit_resources(); "
        "bytearray(1100 * 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert b"MemoryError" in done.stderr


def test_the_cpu_time_of_the_reader_is_limited():
    code = (
        "from converters.sandbox import child, process; process.CPU_SECONDS = 1; "
        "child.limit_resources()\nwhile True: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, check=False)
    assert done.returncode < 0


def test_a_file_beyond_the_limit_is_not_opened(tmp_path):
    path = tmp_path / "large.h5"
    with path.open("wb") as file:
        file.truncate(process.FILE_BYTES + 1)
    with pytest.raises(InputError, match="without the optimizer"):
        import_file(path)


def test_damaged_files_raise_one_clear_error_each():
    done = subprocess.run(
        [sys.executable, "benchmarks/fuzz_importers.py", "--mutations", "240"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "240 files" in done.stdout


def test_a_malicious_architecture_file_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"class_name": "Evil", "config": io.BytesIO.__name__}))
    with pytest.raises(InputError, match="the model is a 'Evil', whose Python code is in no file"):
        import_file(FIXTURES / "keras3-feedback.weights.h5", architecture=path)
