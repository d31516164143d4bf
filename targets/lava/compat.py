"""Import Lava on Python versions that its wheel does not admit.

lava-nc 0.10.0 declares Python <3.11, and from 3.11 on its import fails: ``dataclasses`` refuses a
default value whose class has no hash (it takes it for a mutable one), and the module
``lava.magma.compiler.var_model`` has instances of plain dataclasses as defaults. Nothing else in
Lava depends on it, so that one module is imported while ``dataclasses.dataclass`` gives every class
a hash; afterwards the decorator is as it was. On Python 3.10 the patch changes nothing that Lava
can see.

Importing Lava sets the start method of multiprocessing to "fork" for the whole interpreter, which
is why it is imported in the worker only.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from unittest import mock

from lmu_deploy.core.errors import MissingDependencyError

_MEND = "run `lmu-deploy doctor --fix`"
_PATCHED = "lava.magma.compiler.var_model"


def lava_version() -> str:
    """Version of the installed lava-nc; nothing is imported.

    Raises
    ------
    MissingDependencyError
        When it is absent.
    """
    try:
        return version("lava-nc")
    except PackageNotFoundError:
        raise MissingDependencyError(f"target lava needs lava-nc 0.10.0; {_MEND}.") from None


def import_lava() -> ModuleType:
    """Import Lava, on Python 3.11 and later too; give the package ``lava``.

    Raises
    ------
    MissingDependencyError
        When it is absent, or cannot be imported for another reason.
    """
    lava_version()
    hashable = functools.partial(dataclasses.dataclass, unsafe_hash=True)
    try:
        # The third-party part of the import comes first, outside the patch.
        for name in ("networkx", "scipy.sparse", "asteval"):
            importlib.import_module(name)
        with mock.patch.object(dataclasses, "dataclass", hashable):
            importlib.import_module(_PATCHED)
        importlib.import_module("lava.magma.core.run_configs")
        return importlib.import_module("lava")
    except Exception as error:
        raise MissingDependencyError(
            f"lava-nc cannot be imported ({type(error).__name__}: {error}); {_MEND}."
        ) from error
