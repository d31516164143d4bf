"""A template and what it shows, as one HTML file that needs no other."""

from __future__ import annotations

from importlib.resources import files

from lmu_deploy.errors import MissingDependencyError


def missing(error: ImportError) -> MissingDependencyError:
    """Say which command brings what a report needs."""
    return MissingDependencyError(
        f"a report needs jinja2 and matplotlib ({error}); run: pip install 'lmu-deploy[report]'"
    )


def render(template: str, **values: object) -> str:
    """Fill a template of this package in; texts are escaped, and the style is part of the page.

    Raises
    ------
    MissingDependencyError
        When jinja2 is absent.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise missing(error) from error
    environment = Environment(
        loader=PackageLoader("lmu_deploy.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    style = (files("lmu_deploy.reporting") / "style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, **values)


def _breakable(name: str) -> str:
    """Let a long name break after its slashes."""
    from markupsafe import Markup, escape

    return Markup("/<wbr>").join(escape(part) for part in name.split("/"))
