"""Commands, options, functions and files that the pages name exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import lmu_deploy

ROOT = Path(__file__).resolve().parents[2]
CARDS = (ROOT / "examples" / "models").glob("*.md")
PAGES = sorted(
    [
        *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
        *(ROOT / "docs").rglob("*.md"),
        *CARDS,
    ]
)
COMMAND = re.compile(r"^ {0,8}(lmu-deploy [a-z].*)$|`(lmu-deploy [a-z][^`]* [^`]+)`", re.M)
FILE = re.compile(r"`((?:lmu_deploy|converters|targets|examples|docs|tests)/[\w./-]+)`")


@pytest.fixture(scope="module")
def hook():
    """The module that writes the command-line reference."""
    path = ROOT / "docs" / "hooks" / "commands.py"
    spec = importlib.util.spec_from_file_location("docs_hooks_commands", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands_of(page: Path) -> list[str]:
    """Return the complete commands of a page, in code blocks and in lines."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = [block or inline for block, inline in COMMAND.findall(text)]
    # A word in capitals is a placeholder.
    return [c for c in found if not re.search(r"\b[A-Z]{3,}\b(?!\.)|\.\.\.|[<>|]", c)]


def test_the_pages_contain_commands():
    assert sum(len(commands_of(page)) for page in PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_options_of_every_command_exist(hook, page):
    for command in commands_of(page):
        name, *arguments = shlex.split(command, comments=True)[1:]
        known = hook.commands()
        assert name in known, f"{page.name}: {command}"
        # Parses the arguments and raises the error that a call would show; runs nothing.
        known[name].make_context(name, arguments)


def test_a_wrong_option_is_found(hook):
    deploy = hook.commands()["deploy"]
    wrong = {
        "no such option": ["x", "--tarjet", "lava"],
        "missing": ["x"],
        "integer": ["x", "--target", "lava", "--limit", "eight"],
    }
    for message, arguments in wrong.items():
        with pytest.raises(Exception, match=f"(?i){message}"):
            deploy.make_context("deploy", arguments)


def test_the_reference_has_every_command_and_option(hook):
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    shown = hook.on_page_markdown(page)
    assert hook.PLACE in page
    assert hook.PLACE not in shown
    for name, command in hook.commands().items():
        section = shown.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert section, name
        for parameter in command.params:
            word = (
                parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name.upper()
            )
            assert f"`{word}" in section, f"{name} {word}"
            assert parameter.help, f"{name} {word} has no help"
    assert "`--limit N`" in shown
    assert "`--fix`" in shown
    assert "`--record PATH`" in shown


def test_every_public_name_is_in_the_python_page():
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    known = set(re.findall(r"(?:^::: |heading: )([\w.]+)", text, re.MULTILINE))
    for name in set(lmu_deploy.__all__) - {"__version__"}:
        place = f"{lmu_deploy._NAMES[name]}.{name}"
        assert {place, f"lmu_deploy.{name}"} & known, f"add `::: {place}`"


def test_files_that_pages_name_exist():
    for page in PAGES:
        for name in FILE.findall(page.read_text(encoding="utf-8")):
            # A page may omit the ending.
            assert list(ROOT.glob(f"{name.rstrip('/')}*")), f"{page.name} names {name}"


def test_pictures_that_pages_show_exist():
    for page in PAGES:
        for name in re.findall(
            r"!\[[^\]]*\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")
        ):
            assert (page.parent / name).is_file(), f"{page.name} shows {name}"


def test_the_makefile_has_the_targets_that_pages_name():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"^ *make (\w+)|`make (\w+)`", text, re.MULTILINE):
            assert (name[0] or name[1]) in targets, page.name
