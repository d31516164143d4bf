"""Importers read in forks of one process, except where the sandbox itself is tested.

A new interpreter for each of some two hundred files would spend a minute on importing libraries.
"""

import sys

import forks
import pytest

from converters.sandbox import process


@pytest.fixture(scope="module", autouse=True)
def quick_sandbox(request):
    """Replace the start of an interpreter, where forks from a server exist."""
    if sys.platform == "win32" or "sandbox" in request.path.parts:
        yield
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process, "launch", forks.launch)
        yield
