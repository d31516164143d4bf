"""Checks as a JUnit file, which continuous integration reads: one test case for each check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from lmu_deploy.atomic import write_text
from lmu_deploy.fidelity.gate import Check


def write_junit(path: Path | str, checks: Sequence[Check], task: str) -> None:
    """Write the checks; a class for each target, named after the task.

    Raises
    ------
    InputError
        When the file cannot be written.
    """
    failed = sum(not check.held for check in checks)
    suite = Element(
        "testsuite", name="lmu-deploy", tests=str(len(checks)), failures=str(failed), errors="0"
    )
    for check in checks:
        case = SubElement(suite, "testcase", classname=f"{task}.{check.target}", name=check.name)
        if check.held:
            SubElement(case, "system-out").text = check.sentence
        else:
            SubElement(case, "failure", message=check.sentence)
    indent(suite)
    text = tostring(suite, encoding="unicode", xml_declaration=False)
    write_text(Path(path), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
