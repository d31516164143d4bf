"""Legendre Memory Units on neuromorphic hardware, with a report on what changed on the way.

Every command of ``lmu-deploy`` has a call of the same meaning that takes and returns objects; paths
work everywhere objects do::

    import lmu_deploy as ld

    network = ld.load("digits.safetensors")
    data = ld.load_task("digits")
    quantized = ld.quantize(network, data)
    run = ld.run(quantized, data, target="lava", limit=8, record=True)
    report = ld.validate(network, data, targets=["integer", {"lava": 8}])

Names are imported when they are first used, so that ``import lmu_deploy`` stays quick.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Dataset": "lmu_deploy.tasks.dataset",
    "FidelityReport": "lmu_deploy.api.report",
    "InputError": "lmu_deploy.core.errors",
    "IntegerNetwork": "lmu_deploy.core.integer.network",
    "LmuDeployError": "lmu_deploy.core.errors",
    "LoihiGraph": "lmu_deploy.core.spiking.graph",
    "LoihiNetwork": "lmu_deploy.core.spiking.loihi",
    "MissingDependencyError": "lmu_deploy.core.errors",
    "Network": "lmu_deploy.core.graph.network",
    "Node": "lmu_deploy.core.graph.network",
    "Run": "targets.base",
    "RunError": "lmu_deploy.core.errors",
    "RunResult": "lmu_deploy.api.run",
    "SpikingGraph": "lmu_deploy.core.spiking.graph",
    "SpikingNetwork": "lmu_deploy.core.spiking.network",
    "check": "lmu_deploy.api.check",
    "chip_lifetime": "lmu_deploy.api.spike",
    "chip_yield": "lmu_deploy.api.spike",
    "demo": "lmu_deploy.api.train",
    "doctor": "lmu_deploy.api.doctor",
    "export": "lmu_deploy.api.exchange",
    "from_keras": "lmu_deploy.api.exchange",
    "from_torch": "converters.pytorch.convert",
    "import_network": "lmu_deploy.api.exchange",
    "load": "lmu_deploy.core.loading",
    "load_task": "lmu_deploy.tasks.dataset",
    "quantize": "lmu_deploy.api.quantize",
    "run": "lmu_deploy.api.run",
    "run_reference": "lmu_deploy.core.reference",
    "save": "lmu_deploy.core.files",
    "spike": "lmu_deploy.api.spike",
    "sweep": "lmu_deploy.api.sweep",
    "targets": "lmu_deploy.api.run",
    "to_torch": "lmu_deploy.nn.convert",
    "train": "lmu_deploy.api.train",
    "validate": "lmu_deploy.api.validate",
    "vectors": "lmu_deploy.api.exchange",
    "write_report": "lmu_deploy.api.report",
}
_DEPRECATED = {"LMUNetwork": ("lmu_deploy.core.network", "Network")}
"""Names that still work, with their modules and what replaces them."""
__all__ = sorted([*_NAMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _DEPRECATED:
        module, instead = _DEPRECATED[name]
        message = f"lmu_deploy.{name} is deprecated; use lmu_deploy.{instead}."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(import_module(module), name)
    if name not in _NAMES:
        raise AttributeError(f"module 'lmu_deploy' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
