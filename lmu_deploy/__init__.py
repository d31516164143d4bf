"""Legendre Memory Units on neuromorphic hardware, and proof of what survived the trip.

Every command of `lmu-deploy` is a Python call of the same name here::

    import lmu_deploy
    result = lmu_deploy.train("digits", out="digits.safetensors")
    lmu_deploy.validate(result.network, targets="integer,brian2", out="report")

Names are imported when they are first used, so that `import lmu_deploy` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_CALLS = {
    name: f"lmu_deploy.commands.{name}"
    for name in (
        "check",
        "chip_yield",
        "demo",
        "deploy",
        "doctor",
        "export",
        "quantise",
        "report",
        "spike",
        "sweep",
        "targets",
        "train",
        "validate",
    )
}
_NAMES = {
    **_CALLS,
    "import_network": "lmu_deploy.commands.import_network",
    "InputError": "lmu_deploy.errors",
    "IntegerNetwork": "lmu_deploy.integer_network",
    "LMUNetwork": "lmu_deploy.network",
    "LoihiNetwork": "lmu_deploy.loihi_network",
    "LmuDeployError": "lmu_deploy.errors",
    "RunError": "lmu_deploy.errors",
    "SpikingNetwork": "lmu_deploy.spiking_network",
    "from_torch": "converters.torch_modules.convert",
    "load_any": "lmu_deploy.representations",
    "run_reference": "lmu_deploy.reference",
    "save": "lmu_deploy.files",
    "to_torch": "converters.trainer",
}
__all__ = sorted([*_NAMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'lmu_deploy' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
