"""Attribution of the errors of a network to its operations or imperfections, and to places."""

from lmu_deploy.fidelity.attribution.measure import Errors
from lmu_deploy.fidelity.attribution.study import (
    Attribution,
    Cause,
    Step,
    affordable_samples,
    attribute,
)
from lmu_deploy.fidelity.attribution.switches import SOURCES

__all__ = [
    "SOURCES",
    "Attribution",
    "Cause",
    "Errors",
    "Step",
    "affordable_samples",
    "attribute",
]
