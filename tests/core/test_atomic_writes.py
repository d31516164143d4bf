"""Atomic writes: an interrupted write leaves the old file, or none."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmu_deploy.core.errors import InputError
from lmu_deploy.core.files import atomic_write, check_output, write_text


def names(folder):
    return [entry.name for entry in folder.iterdir()]


def test_file_is_written_without_leftovers(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "Größe")
    assert path.read_text(encoding="utf-8") == "Größe"
    assert names(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_the_old_file(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert names(tmp_path) == ([] if old is None else ["a.txt"])
    assert old is None or path.read_text() == old


def test_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, signal, sys\n"
        "from lmu_deploy.core.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_temporary_file_has_the_suffix(tmp_path):
    with atomic_write(tmp_path / "a.safetensors") as temporary:
        assert temporary.suffix == ".safetensors"
        assert temporary.parent == tmp_path


def test_unwritable_paths_are_rejected(tmp_path):
    with pytest.raises(InputError, match="is a folder"), atomic_write(tmp_path):
        pass
    missing = tmp_path / "no" / "a.txt"
    with pytest.raises(InputError, match=r"cannot write .*No such file"), atomic_write(missing):
        pass
    (tmp_path / "file").touch()
    beneath = tmp_path / "file" / "a.txt"
    with pytest.raises(InputError, match="cannot write"), atomic_write(beneath):
        pass


def test_symbolic_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "store").mkdir()
    real, link = tmp_path / "store" / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert list((tmp_path / "store").iterdir()) == [real]


def test_pipe_and_device_are_written_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(pipe.read_text)
        write_text(pipe, "through")
        assert reader.result(timeout=5) == "through"
    assert pipe.is_fifo()
    write_text("/dev/null", "gone")
    assert Path("/dev/null").is_char_device()


def test_full_device_is_one_sentence():
    with pytest.raises(
        InputError, match="cannot write /dev/full: No space left on device; make room"
    ):
        write_text("/dev/full", "too much")
    assert Path("/dev/full").is_char_device()


def test_what_is_read_is_not_overwritten(tmp_path):
    with pytest.raises(InputError, match="is the file that is read"):
        check_output(tmp_path / "x.safetensors", tmp_path / "." / "x.safetensors")
    with pytest.raises(InputError, match="is a folder; give the name of a file to write"):
        check_output(tmp_path, None)
    with pytest.raises(InputError, match="there is no such folder; give a folder that exists"):
        check_output(tmp_path / "absent" / "y.safetensors", None)
    check_output(tmp_path / "y.safetensors", tmp_path / "x.safetensors")
