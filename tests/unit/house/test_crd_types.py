"""The CRD file by itself: it says what the Python types say, is bounded and described, and fits the oldest Kubernetes.

Not for what an API server makes of it: `tests/cluster/test_crd.py`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import yaml
from pydantic import TypeAdapter

from nodepool_membership.api import names
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.state.state import BYTES_PER_ID

_FILE: Final = Path(__file__).parent.parent.parent.parent / "crds" / "nodepoolmemberships.yaml"

Node: TypeAlias = "dict[str, Value]"
Value: TypeAlias = "Node | list[Value] | str | int | bool | None"


def _dict(value: Value) -> Node:
    assert isinstance(value, dict)
    return value


def _list(value: Value) -> list[Value]:
    assert isinstance(value, list)
    return value


def _walk(path: str, schema: Node) -> Iterator[tuple[str, Node]]:
    yield path, schema
    for name, child in _dict(schema.get("properties", {})).items():
        yield from _walk(f"{path}.{name}", _dict(child))
    if "items" in schema:
        yield from _walk(f"{path}[]", _dict(schema["items"]))


def _python_schema(python_type: type) -> Node:
    """JSON Schema as pydantic derives it, with references resolved and the alternative `null` taken away."""
    schema = TypeAdapter(python_type).json_schema(by_alias=True, mode="validation")
    definitions = schema.pop("$defs")

    def plain(value: Value) -> Value:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return plain(definitions[str(value["$ref"]).removeprefix("#/$defs/")])
        if "anyOf" in value:
            return plain(next(option for option in _list(value["anyOf"]) if option != {"type": "null"}))
        return {name: plain(child) for name, child in value.items()}

    return _dict(plain(schema))


CRD: Final[Node] = yaml.safe_load(_FILE.read_text())
VERSION: Final = _dict(_list(_dict(CRD["spec"])["versions"])[0])
ROOT: Final = _dict(_dict(VERSION["schema"])["openAPIV3Schema"])
NODES: Final = dict(_walk("", ROOT))
OURS: Final = {path: node for path, node in NODES.items() if path.startswith((".spec", ".status"))}
PYTHON: Final = dict([*_walk(".spec", _python_schema(Spec)), *_walk(".status", _python_schema(Status))])
RULES: Final = [
    (path, _dict(rule)) for path, node in NODES.items() for rule in _list(node.get("x-kubernetes-validations", []))
]
EACH_FIELD: Final = pytest.mark.parametrize("path", OURS)
STATUS_DEFAULT: Final = _dict(OURS[".status"]["default"])


def test_fields_are_those_of_the_python_types() -> None:
    assert set(OURS) == set(PYTHON)


@EACH_FIELD
def test_type_is_that_of_the_python_type(path: str) -> None:
    ours, python = OURS[path], PYTHON[path]
    assert (ours["type"], ours.get("format") == "date-time") == (python["type"], python.get("format") == "date-time")


@EACH_FIELD
def test_what_python_cannot_do_without_is_required(path: str) -> None:
    ours, python = OURS[path].get("required", []), PYTHON[path].get("required", [])
    assert set(map(str, _list(ours))) >= set(map(str, _list(python)))


def test_what_the_crd_requires_beyond_that_is_what_conditions_need() -> None:
    """`metav1.Condition` requires both; a type with defaults for them keeps the operator's own tests short."""
    beyond = {
        f"{path}.{name}"
        for path, node in OURS.items()
        for name in _list(node.get("required", []))
        if name not in _list(PYTHON[path].get("required", []))
    }
    assert beyond == {".status.conditions[].message", ".status.conditions[].lastTransitionTime"}


@pytest.mark.parametrize(
    "path", [path for path in OURS if path.startswith(".spec") and "default" in PYTHON.get(path, {})]
)
def test_default_of_a_field_in_spec_is_that_of_the_python_type(path: str) -> None:
    assert OURS[path].get("default") == PYTHON[path]["default"]


def test_only_spec_and_the_whole_status_have_defaults() -> None:
    """A default inside status would appear in what the operator reads and be no part of what it wrote."""
    assert [path for path, node in OURS.items() if path.startswith(".status") and "default" in node] == [".status"]


def test_default_status_reads_as_a_status_nobody_wrote() -> None:
    status: Status = TypeAdapter(Status).validate_python(STATUS_DEFAULT)
    (ready,) = status.conditions
    assert (status.observed_generation, status.last_batch) == (Status().observed_generation, None)
    assert (ready.type, ready.status, ready.reason, ready.observed_generation) == ("Ready", "Unknown", "Pending", -1)
    assert ready.last_transition_time == datetime(1970, 1, 1, tzinfo=UTC)


def test_names_are_those_of_the_python_constants() -> None:
    spec = _dict(CRD["spec"])
    wanted = {"kind": names.KIND, "plural": names.PLURAL, "shortNames": ["npmem"], "categories": ["cce"]}
    assert (spec["group"], VERSION["name"], spec["scope"]) == (names.GROUP, names.VERSION, "Namespaced")
    assert wanted.items() <= _dict(spec["names"]).items()
    assert _dict(CRD["metadata"])["name"] == f"{names.PLURAL}.{names.GROUP}"


def test_bounds_are_those_of_the_python_constants() -> None:
    assert OURS[".spec.serverIDs"]["maxItems"] == names.MAX_SERVERS
    assert OURS[".spec.batchSize"]["maximum"] == names.MAX_BATCH
    assert OURS[".status.jobs[].serverIDs"]["maxItems"] == names.MAX_BATCH
    assert OURS[".status.jobs"]["maxItems"] == names.MAX_JOBS


def test_servers_that_failed_and_left_the_list_are_bounded_by_the_size_of_the_object_only() -> None:
    """A group of them is refused otherwise, and with it the outcome of a call that was made (rule P4)."""
    most = OURS[".status.failures[].serverIDs"]["maxItems"]
    assert isinstance(most, int)
    assert most * BYTES_PER_ID >= names.MAX_OBJECT_BYTES


@EACH_FIELD
def test_is_bounded(path: str) -> None:
    node = OURS[path]
    match node["type"]:
        case "string":
            assert "maxLength" in node
        case "array":
            assert "maxItems" in node
            assert node["x-kubernetes-list-type"] in {"atomic", "map"}
        case "integer":
            assert node["format"] in {"int32", "int64"}
            assert "minimum" in node
            assert "maximum" in node or path.startswith(".status")
        case "object":
            assert "properties" in node, "an object with any number of fields"
        case kind:
            assert kind == "boolean"


@pytest.mark.parametrize("path", [path for path in OURS if not path.endswith("[]")])
def test_is_described(path: str) -> None:
    assert str(OURS[path]["description"]).endswith(".")


@pytest.mark.parametrize(
    "path",
    [p for p, node in OURS.items() if p.startswith(".spec.") and node["type"] != "object" and not p.endswith("[]")],
)
def test_description_says_the_default_or_that_there_is_none(path: str) -> None:
    node = OURS[path]
    words = str(node["description"])
    if "default" in node:
        assert f"default {node['default']}".lower() in words.lower()
    else:
        assert "Required" in words or "No default" in words


@pytest.mark.parametrize("path", [".status.jobs[].phase", ".status.jobs[].operation", ".status.failures[].reason"])
def test_an_older_definition_holds_what_a_newer_operator_writes(path: str) -> None:
    assert not {"enum", "pattern"} & OURS[path].keys()


def test_the_description_of_phase_names_every_phase() -> None:
    words = str(OURS[".status.jobs[].phase"]["description"])
    assert [phase for phase in Phase if phase not in words] == []


@pytest.mark.parametrize(("path", "rule"), RULES)
def test_rule_is_of_the_oldest_kubernetes_and_its_message_begins_with_the_field(path: str, rule: Node) -> None:
    """`optionalOldSelf` came with 1.29, sets and `format` functions later still."""
    assert rule.keys() == {"rule", "message"}
    assert "sets." not in str(rule["rule"])
    first_word = str(rule["message"]).split()[0]
    assert any(f".{first_word}" in field for field in OURS if field.startswith(path))


def test_no_format_but_those_that_say_what_they_check() -> None:
    """`format: uuid` accepts ids without dashes."""
    assert {node["format"] for node in NODES.values() if "format" in node} == {"int32", "int64", "date-time"}
