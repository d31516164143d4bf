"""From figures to report.html."""

from lmu_deploy.report.write import write_report

__all__ = ["write_report"]
