"""Workers of Lava are forks of one process, except where their start and end are tested."""

import subprocess
import sys
from types import SimpleNamespace

import forks
import pytest

from targets.lava import supervisor

NEW_INTERPRETERS = ("test_lava_failures.py", "test_lava_parts.py", "test_lava_run.py")


@pytest.fixture(scope="module", autouse=True)
def quick_lava(request):
    """Replace the start of an interpreter, which takes more time than most runs of the tests."""
    if sys.platform != "linux" or request.path.name in NEW_INTERPRETERS:
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        forked = SimpleNamespace(**{**vars(subprocess), "Popen": forks.ForkedWorker})
        patched.setattr(supervisor, "subprocess", forked)
        yield
