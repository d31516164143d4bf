"""Reports checked in a browser with the accessibility rules of axe-core.

axe-core is not part of this repository. `npm install --no-save axe-core` brings it into
node_modules, or the environment variable LMU_DEPLOY_AXE names an axe.min.js.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browsers import chromium
from validations import CASES

from lmu_deploy.api.quantize import quantize
from lmu_deploy.fidelity import Result, write_fidelity
from lmu_deploy.fidelity.measures.energy import costs_of
from lmu_deploy.report import write_report
from lmu_deploy.report.comparison import write_comparison
from targets.integer import IntegerTarget

ROOT = Path(__file__).resolve().parents[2]
AXE = Path(os.environ.get("LMU_DEPLOY_AXE", ROOT / "node_modules/axe-core/axe.min.js"))
PUBLISHED = sorted((ROOT / "docs" / "reports").glob("*/report.html"))
LOOKS = [(1280, "light"), (390, "dark")]

# Rules of WCAG 2.0, 2.1 and 2.2 at A and AA, and what axe calls best practice.
RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ['violations']});
  return {violations: found.violations.map(
            v => [v.id, v.help, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))]),
          passes: found.passes.length};
}"""


@pytest.fixture(scope="module")
def browser():
    if not AXE.is_file():
        pytest.skip("no axe-core on this machine; npm install --no-save axe-core")
    with chromium() as one:
        yield one


def violations(browser, path, look):
    width, scheme = look
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate(RUN)
    finally:
        context.close()
    assert found["passes"] > 15
    return found["violations"]


@pytest.mark.parametrize("case", CASES)
def test_reports_follow_the_rules(case, browser, reported):
    looks = LOOKS if case == "digits" else LOOKS[:1]
    for look in looks:
        assert violations(browser, reported(case), look) == [], look


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_reports_follow_the_rules(path, browser):
    for look in LOOKS if path.parent.name == "mackey-glass" else LOOKS[:1]:
        assert violations(browser, path, look) == [], look


@pytest.fixture(scope="module")
def costed(digits, assembled, tmp_path_factory):
    """Report with costs and a network that fits its chip."""
    network = quantize("examples/models/digits.safetensors")
    run = IntegerTarget().run(network, digits.split.inputs)
    folder = tmp_path_factory.mktemp("costed")
    fidelity, excerpts = assembled(digits, results=[Result(run, network)])
    assert costs_of(run, network) is not None
    write_fidelity(folder, fidelity, excerpts)
    return write_report(folder)


def test_costs_follow_the_rules(browser, costed):
    for look in LOOKS:
        assert violations(browser, costed, look) == [], look


def test_comparisons_follow_the_rules(browser, costed, reported):
    path = write_comparison(costed.parent, reported("digits").parent)
    for look in LOOKS:
        assert violations(browser, path, look) == [], look


def test_a_fault_is_found(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><html lang=en><title>t</title><main><h1>a</h1><img src='data:,'>"
        + "<p>text</p><ul><li>b</li></ul><table><tr><th scope=row>c</th><td>d</td></tr></table>"
    )
    context = browser.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = [name for name, _, _ in page.evaluate(RUN)["violations"]]
    context.close()
    assert "image-alt" in found
