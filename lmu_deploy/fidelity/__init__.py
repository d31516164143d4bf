"""Fidelity of targets: metrics, errors, sources of error, energy and time."""

from lmu_deploy.fidelity.assemble import Result, assemble, deploy_summary
from lmu_deploy.fidelity.judge import judge
from lmu_deploy.fidelity.schema import Fidelity, TargetFidelity, json_schema
from lmu_deploy.fidelity.store import read_excerpts, read_fidelity, write_fidelity

__all__ = [
    "Fidelity",
    "Result",
    "TargetFidelity",
    "assemble",
    "deploy_summary",
    "json_schema",
    "judge",
    "read_excerpts",
    "read_fidelity",
    "write_fidelity",
]
