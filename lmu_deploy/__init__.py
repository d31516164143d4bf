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

_NAMES = {
    "check": "lmu_deploy.api.check",
    "chip_yield": "lmu_deploy.api.spike",
    "demo": "lmu_deploy.api.train",
    "deploy": "lmu_deploy.api.run",
    "doctor": "lmu_deploy.api.doctor",
    "export": "lmu_deploy.api.export",
    "quantize": "lmu_deploy.api.quantize",
    "report": "lmu_deploy.api.report",
    "spike": "lmu_deploy.api.spike",
    "sweep": "lmu_deploy.api.sweep",
    "targets": "lmu_deploy.api.run",
    "train": "lmu_deploy.api.train",
    "validate": "lmu_deploy.api.validate",
    "import_network": "lmu_deploy.api.import_network",
    "InputError": "lmu_deploy.core.errors",
    "IntegerNetwork": "lmu_deploy.core.integer.network",
    "LMUNetwork": "lmu_deploy.core.network",
    "LoihiNetwork": "lmu_deploy.core.spiking.loihi",
    "LmuDeployError": "lmu_deploy.core.errors",
    "RunError": "lmu_deploy.core.errors",
    "SpikingNetwork": "lmu_deploy.core.spiking.network",
    "from_torch": "converters.pytorch.convert",
    "Dataset": "lmu_deploy.tasks.dataset",
    "load_any": "lmu_deploy.core.loading",
    "load_task": "lmu_deploy.tasks.dataset",
    "run_reference": "lmu_deploy.core.reference",
    "save": "lmu_deploy.core.files",
    "to_torch": "lmu_deploy.nn.convert",
}
__all__ = sorted([*_NAMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'lmu_deploy' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
