"""Libraries of the processes in forks.py; those that are absent are left out."""

import contextlib
import importlib

for name in (
    "h5py",
    "torch",
    "converters.sandbox.child",
    "targets.lava.assembly",
    "targets.lava_lif.assembly",
    "targets.lava.worker",
):
    with contextlib.suppress(Exception):
        importlib.import_module(name)
