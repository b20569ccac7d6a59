"""What is generated is current, and the JSON schema judges as it should."""

import json
from pathlib import Path
from typing import Final

import jsonschema
import pytest
import yaml

from pages.all import FILES, ROOT
from pages.api import schema

SAMPLE: Final = ROOT / "deploy" / "samples" / "nodepoolmembership.yaml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_is_current(path: Path) -> None:
    assert path.read_text() == FILES[path](), f"run `make pages`: {path.relative_to(ROOT)} is older than the code"


def test_the_schema_takes_the_sample() -> None:
    jsonschema.validate(yaml.safe_load(SAMPLE.read_text()), json.loads(schema()))


@pytest.mark.parametrize(
    ("field", "value"),
    [("suspnd", True), ("batchSize", 201), ("serverIDs", "one"), ("removalPolicy", "remove"), ("nodePool", {})],
)
def test_the_schema_refuses_what_the_api_server_refuses(field: str, value: object) -> None:
    sample = yaml.safe_load(SAMPLE.read_text())
    sample["spec"][field] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(sample, json.loads(schema()))
