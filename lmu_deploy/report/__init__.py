"""Reports of a validation as HTML and Markdown, generated from its figures."""

from lmu_deploy.report.write import write_report

__all__ = ["write_report"]
