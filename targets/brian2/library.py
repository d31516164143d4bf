"""Import of Brian2 without its side effects.

On import, Brian2 writes a debug log and a copy of the main script to the temporary folder,
redirects Python's warnings to its own log, and replaces the handlers of uncaught exceptions and
interrupts. All of this is undone.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

from lmu_deploy.core.errors import MissingDependencyError

_REMEDY = 'install it with: python -m pip install "lmu-deploy[brian2]"'


@cache
def brian2_library() -> ModuleType:
    """Import and return `brian2` without side effects.

    Raises
    ------
    MissingDependencyError
        When it is not installed, or incompatible with another library.
    """
    hook = sys.excepthook
    try:
        with _signal_handlers_unchanged():
            import brian2
        from brian2.utils.logger import BrianLogger
    except ImportError as error:
        raise MissingDependencyError(
            f"target brian2 needs Brian2, which is not installed ({error}); {_REMEDY}."
        ) from error
    except AttributeError as error:
        raise MissingDependencyError(
            f"Brian2 cannot be imported beside this NumPy ({error}); {_REMEDY}."
        ) from error
    finally:
        sys.excepthook = hook
    logging.captureWarnings(False)
    logging.getLogger("py.warnings").removeHandler(BrianLogger.console_handler)
    logging.getLogger("brian2").setLevel(logging.ERROR)
    if BrianLogger.file_handler is not None:
        logging.getLogger("brian2").removeHandler(BrianLogger.file_handler)
        BrianLogger.file_handler.close()
        BrianLogger.file_handler = None
    for left in (BrianLogger.tmp_log, BrianLogger.tmp_script):
        if left is not None:
            with contextlib.suppress(OSError):
                Path(left).unlink()
    BrianLogger.tmp_log = BrianLogger.tmp_script = None
    return brian2


@contextlib.contextmanager
def _signal_handlers_unchanged() -> Iterator[None]:
    """Prevent changes of signal handlers.

    Brian2's own handler ends an interrupted run early, as if it were complete. Outside the main
    thread, as in a worker of a sweep, setting a handler raises an error.
    """
    set_handler = signal.signal
    signal.signal = lambda number, _: signal.getsignal(number)  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler


@contextlib.contextmanager
def own_garbage() -> Iterator[None]:
    """Collect the garbage of a simulation, and none of the rest of the process.

    `brian2.Network.run` collects garbage, which visits every object of the process: about 0.5 s
    where the libraries of this package are loaded, as long as a short simulation takes. As the
    decorator of a function that builds and runs a simulation, this puts the objects that exist
    before aside until its own are collected.
    """
    apart = gc.get_freeze_count() == 0  # a program may keep objects apart itself
    if apart:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if apart:
            gc.unfreeze()


def code_generator() -> str:
    """Return Brian2's code generator: cython where there is a compiler, else numpy."""
    b2 = brian2_library()
    from brian2.devices.device import auto_target

    chosen = str(b2.prefs.codegen.target)
    return str(auto_target().class_name) if chosen == "auto" else chosen
