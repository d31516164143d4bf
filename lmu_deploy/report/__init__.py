"""Reports of a validation as HTML and Markdown, generated from its figures."""

from lmu_deploy.core.errors import MissingDependencyError

try:
    import matplotlib.axes  # noqa: F401 (all plots need it, so it is checked once, here)

    from lmu_deploy.report.write import write_report
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("matplotlib", "jinja2", "markupsafe"):
        raise
    raise MissingDependencyError(
        f"a report needs jinja2 and matplotlib ({error}); run: pip install 'lmu-deploy[report]'"
    ) from error

__all__ = ["write_report"]
