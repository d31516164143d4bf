"""Import of Lava on Python versions that its wheel does not support, and facts about it.

lava-nc 0.10.0 declares Python <3.11. From 3.11 on its import fails: ``dataclasses`` rejects default
values whose class has no hash, because they may be mutable, and the module
``lava.magma.compiler.var_model`` uses instances of plain dataclasses as defaults. Nothing else in
Lava depends on this, so that one module is imported while ``dataclasses.dataclass`` gives every
class a hash; the decorator is restored afterwards. On Python 3.10 the patch has no effect.

Importing Lava sets the start method of multiprocessing to "fork" for the whole interpreter, so only
the worker imports it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import platform
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from lmu_deploy.core.errors import MissingDependencyError

_REMEDY = "run `lmu-deploy doctor --fix`"
_PATCHED = "lava.magma.compiler.var_model"


def lava_version() -> str:
    """Return the version of the installed lava-nc without importing it.

    Raises
    ------
    MissingDependencyError
        When it is not installed.
    """
    try:
        return version("lava-nc")
    except PackageNotFoundError:
        raise MissingDependencyError(f"target lava needs lava-nc 0.10.0; {_REMEDY}.") from None


def lava_settings(version: str) -> dict[str, Any]:
    """Return versions and run configuration, for the settings of a Run."""
    return {
        "versions": {
            "lava-nc": version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "run_config": "Loihi2SimCfg(select_tag='fixed_pt')",
    }


def import_lava() -> ModuleType:
    """Import the package ``lava``, also on Python 3.11 and later.

    Raises
    ------
    MissingDependencyError
        When it is not installed, or its import fails.
    """
    lava_version()
    hashable = functools.partial(dataclasses.dataclass, unsafe_hash=True)
    try:
        # Third-party modules are imported first, outside the patch.
        for name in ("networkx", "scipy.sparse", "asteval"):
            importlib.import_module(name)
        with mock.patch.object(dataclasses, "dataclass", hashable):
            importlib.import_module(_PATCHED)
        importlib.import_module("lava.magma.core.run_configs")
        return importlib.import_module("lava")
    except Exception as error:
        raise MissingDependencyError(
            f"lava-nc cannot be imported ({type(error).__name__}: {error}); {_REMEDY}."
        ) from error
