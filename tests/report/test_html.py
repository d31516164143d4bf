"""report.html as text: valid, reproducible, escaped, equal to the figures of fidelity.json."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from types import SimpleNamespace

import pytest
from validations import CASES

from lmu_deploy.core.errors import InputError, MissingDependencyError
from lmu_deploy.fidelity import Result, write_fidelity
from lmu_deploy.fidelity.schema import Fit
from lmu_deploy.fidelity.store import read_fidelity
from lmu_deploy.report import write_report
from lmu_deploy.report.plots.lines import shortened
from lmu_deploy.report.wording import metric_value

VOID = {"meta", "link", "wbr", "path", "use", "rect"}
HOSTILE = "<script>alert(1)</script>\"'&\x01 $x_"


class Page(HTMLParser):
    """Parser that collects what the tests inspect, and checks that every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.references, self.tags, self.open = Counter(), set(), Counter(), []
        self.urls, self.headings, self.texts, self.images = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags[tag] += 1
        if "id" in attributes:
            self.ids[attributes["id"]] += 1
        for name in ("aria-labelledby", "href", "clip-path", "src"):
            value = attributes.get(name, "")
            if name == "aria-labelledby":
                self.references |= set(value.split())
            elif value.startswith(("#", "url(#")):
                self.references.add(value.removeprefix("url(").strip("#)"))
            elif value:
                self.urls.append(value)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "svg" and "aria-hidden" not in attributes:
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def check(page):
    assert max(page.ids.values()) == 1
    assert page.references <= set(page.ids)
    assert page.urls == ["data:,"]
    assert page.tags["script"] == 1 and page.tags["img"] == 0
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert page.tags["caption"] == page.tags["table"]
    assert page.images
    for image in page.images:
        assert image["role"] == "img"
        assert len(image["aria-labelledby"].split()) == 2
    assert page.tags["title"] == page.tags["desc"] + 1 == len(page.images) + 1


@pytest.mark.parametrize("case", CASES)
def test_reports_are_complete(case, reported):
    check(read(reported(case)))


def test_a_report_is_reproducible_from_its_folder(digits, folder_of):
    folder = folder_of(digits)
    first = write_report(folder).read_bytes()
    assert len(first) < 1_000_000
    (folder / "report.html").unlink()
    assert write_report(folder).read_bytes() == first
    wanted = {"fidelity.json", "plots.npz", "report.html", "report.md"}
    assert {p.name for p in folder.iterdir()} == wanted


def test_figures_are_those_of_the_file(signal, assembled, reported):
    texts = " ".join(" ".join(read(reported("signal")).texts).split())
    fidelity, _ = assembled(signal)
    for found in fidelity.targets.values():
        value = metric_value("nrmse", found.metric.value)
        assert texts.count(value) >= 5  # verdict, sentence, table, and both drawings of the plot
    assert fidelity.command in texts
    assert fidelity.hashes["inputs"] in texts


def test_everything_that_does_not_fit_is_listed(digits, folder_of):
    folder = folder_of(digits, results=[digits.results[1], Result(digits.results[3].run)])
    found = read_fidelity(folder)
    fit = Fit(profile="loihi2", title="Intel Loihi 2", violations=["too wide.", "too long."])
    unfit = found.targets["integer"].model_copy(update={"fit": fit})
    fitting = unfit.model_copy(update={"fit": fit.model_copy(update={"violations": []})})
    targets = {**found.targets, "integer": unfit, "brian2": fitting}
    write_fidelity(folder, found.model_copy(update={"targets": targets}))
    page = read(write_report(folder))
    check(page)
    texts = [text for text in page.texts if text.strip()]
    assert "Violations of chip limits" in texts
    assert {"too wide.", "too long."} <= set(texts)
    headlines = [text for text in texts if "its chip" in text and text.startswith(" ")]
    assert ": does not fit its chip; undecided" in " ".join(texts)  # the first screen says why
    assert len(headlines) == 2
    assert headlines[0].strip().startswith("does not fit its chip; ")
    assert headlines[1].strip().endswith("; fits its chip")


def test_without_rasters_the_rest_is_drawn(digits, folder_of):
    folder = folder_of(digits, results=digits.results[1:2])
    (folder / "plots.npz").unlink()
    page = read(write_report(folder))
    check(page)
    assert any("no raster recorded" in text for text in page.texts)


def test_hostile_texts_are_escaped(digits, folder_of):
    name = HOSTILE
    run = digits.results[1].run
    bad = replace(
        run,
        target=name,
        events={name: run.events["layer0/memory"]},
        rasters={name: run.rasters["layer0/memory"]},
        neurons={name: 48},
        saturations={name: 5},
        notes=(name,),
        settings={name: name},
    )
    network = replace(digits.network, provenance={name: name})
    hostile = SimpleNamespace(
        task=replace(digits.task, name=name),
        network=network,
        reference=digits.reference,
        split=digits.split,
        results=[Result(bad, network, {name: Result(bad)})],
    )
    page = read(write_report(folder_of(hostile, command=name)))
    check(page)
    shown = "".join(page.texts)
    assert shown.count("<script>alert(1)</script>") > 20


def test_errors_are_one_sentence(tmp_path, digits, folder_of, monkeypatch):
    with pytest.raises(InputError, match="no such file"):
        write_report(tmp_path)
    folder = folder_of(digits)
    for module in [m for m in sys.modules if m.startswith("lmu_deploy.report.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"lmu-deploy\[report\]"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_long_names_lose_their_middle():
    assert shortened("layer0/memory", 20) == "layer0/memory"
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert all(len(shortened("x" * 50, n)) == n for n in range(3, 50))


def _luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one, other):
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_have_enough_contrast():
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 to 1 for text, 3 to 1 for marks; light, dark and printed."""
    style = (files("lmu_deploy.report") / "style.css").read_text(encoding="utf-8")
    roots = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--([\w-]+): (#\w{6})", root)) for root in roots)
    for theme in (light, dark, {**light, **printed}):
        for page in ("page", "raised"):
            for text in ("ink", "muted", "accent", "good", "bad"):
                assert _contrast(theme[text], theme[page]) >= 4.5, (text, page)
        for number in range(1, 7):
            assert _contrast(theme[f"series-{number}"], theme["page"]) >= 3.0, number


def test_the_policy_allows_the_one_script_and_nothing_else(reported):
    text = reported("digits").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:"
    )
    for word in ("fetch", "XMLHttp", "import(", "eval", "innerHTML", "http"):
        assert word not in script
