"""The JSON schema in the docs describes fidelity.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmu_deploy.fidelity import json_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "fidelity.schema.json"


def test_the_published_schema_is_current():
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json_schema(), (
        "update it: python tests/fidelity/test_schema_published.py > docs/fidelity.schema.json"
    )


@pytest.mark.parametrize("case", ["digits", "signal", "nothing recorded", "three layers"])
def test_every_written_file_keeps_to_it(case, cases, folder_of):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks the files")
    schema = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    written = json.loads((folder_of(cases[case]) / "fidelity.json").read_text(encoding="utf-8"))
    validator.validate(written)
    for spoilt in ({"version": 1}, {"seed": "zero"}, {"unknown": 1}):
        assert not validator.is_valid({**written, **spoilt})


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1, sort_keys=True))
