"""`kubectl npmem lint`: what is wrong with memberships before they are applied, and what an edit would do."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cel
import pytest
import yaml
from click.testing import CliRunner, Result

from nodepool_membership.plugin.cli import npmem
from upgrade.frozen import CRD

CLUSTER = "11111111-2222-3333-4444-555555555555"
POOL = "66666666-7777-8888-9999-000000000000"
A, B, C = (f"aaaaaaaa-bbbb-cccc-dddd-00000000000{n}" for n in "abc")


def membership(name: str, *ids: str, pool: str = POOL, **spec: object) -> dict[str, object]:
    ref = {"region": "cn-north-4", "projectID": "0" * 32, "clusterID": CLUSTER, "nodePoolID": pool}
    return {
        "apiVersion": "cce.nodepools.dev/v1alpha1",
        "kind": "NodePoolMembership",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"nodePool": ref, "credentialsRef": {"name": "c"}, "serverIDs": list(ids), **spec},
    }


def changed(document: dict[str, object], spec: dict[str, object]) -> dict[str, object]:
    old = document["spec"]
    assert isinstance(old, dict)
    return {**document, "spec": {**old, **spec}}


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(npmem, ["lint", *arguments], input=stdin, catch_exceptions=False)


def linted(*documents: dict[str, object]) -> Result:
    return run("-", stdin=yaml.safe_dump_all(documents))


def write(path: Path, *documents: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(documents))


@pytest.mark.parametrize(
    ("endpoint", "errors"),
    [("https://cce.example", 0), ("http://127.0.0.1:8900", 0), ("https://[::1]:443", 0), ("https://[::1", 1), ("x", 1)],
)
def test_an_endpoint_is_held_against_its_rule(endpoint: str, errors: int) -> None:
    ref = {"endpoint": endpoint, "projectID": "0" * 32, "clusterID": CLUSTER, "nodePoolID": POOL}
    result = linted(changed(membership("m", A), {"nodePool": ref}))
    assert result.exit_code == errors
    assert ("error: ns/m: spec.nodePool.endpoint: endpoint must be" in result.output) is bool(errors)


def test_every_rule_of_the_definition_is_understood_here() -> None:
    """The API server takes what this library does not: its regular expressions are another dialect."""

    def rules(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (rule["rule"] for rule in node.get("x-kubernetes-validations", ()))
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from rules(child)

    texts = [rule for rule in rules(yaml.safe_load(CRD.read_text())) if "self.matches(" in rule]
    assert len(texts) > 10
    for text in texts:
        assert cel.evaluate(text, {"self": ""}) is False, text


def test_what_is_right_passes() -> None:
    result = linted(membership("a", A, B), membership("b", C), {"kind": "Secret", "apiVersion": "v1"})
    assert (result.exit_code, result.output) == (0, "2 memberships, 0 errors\n")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"batchSize": 500}, "spec.batchSize: 500 is greater than the maximum of 200"),
        ({"batchSize": "5"}, "spec.batchSize: '5' is not of type 'integer'"),
        ({"serverIDs": ["x"]}, "spec.serverIDs[0]: 'x' does not match"),
        ({"serverIds": []}, "Additional properties are not allowed ('serverIds' was unexpected)"),
        ({"removalPolicy": "Drop"}, "spec.removalPolicy: 'Drop' is not one of ['Retain', 'Remove']"),
        ({"credentialsRef": {"name": "Bad_Name"}}, "spec.credentialsRef.name: credentialsRef.name must be the name"),
        ({"preflight": {"requiredTag": {"key": "a.b"}}}, "no dot, slash, space or equals sign"),
        ({"preflight": {"requiredTag": {"key": "__x"}}}, "are the cloud's own"),
        ({"nodePool": {"projectID": "0" * 32, "clusterID": CLUSTER, "nodePoolID": POOL}}, "nodePool needs region or"),
    ],
)
def test_what_the_api_server_would_refuse_is_an_error_with_the_field(spec: dict[str, object], text: str) -> None:
    result = linted(changed(membership("m"), spec))
    assert result.exit_code == 1
    assert "stdin: error: ns/m: spec" in result.output
    assert text in result.output


def test_a_server_is_listed_twice_in_either_case() -> None:
    result = linted(membership("m", A, A.upper()))
    assert (result.exit_code, f"warning: ns/m: listed more than once: {A}" in result.output) == (0, True)


def test_a_server_of_two_memberships_is_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", membership("one", A, B))
    write(tmp_path / "deep" / "two.yml", membership("x"), membership("two", B.upper(), C))
    write(tmp_path / ".git" / "three.yaml", membership("three", A))
    result = run(str(tmp_path))
    assert result.exit_code == 1
    assert f"listed by ns/two ({tmp_path}/deep/two.yml (document 2)) and ns/one ({tmp_path}/one.yaml)" in result.output
    assert result.output.count(": error: ") == 1


def test_one_name_twice_is_an_error() -> None:
    result = linted(membership("m", A), membership("m", A))
    assert (result.exit_code, "ns/m is defined in stdin, too" in result.output) == (1, True)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert "not YAML" in run("-", stdin="a: [").output
    assert "No such file" in run(str(tmp_path / "none.yaml")).output
    (tmp_path / "odd.yaml").write_bytes(b"\xff\xfe\x00")
    assert run(str(tmp_path)).exit_code == 1
    for odd in ("", "---\n", "[]", "a", "kind: NodePoolMembership", "{kind: List, items: {}}"):
        assert run("-", stdin=odd).exit_code == 0


@pytest.mark.parametrize("value", ["0x_", "!!int x", "!!bool x", "!!float x", "!!timestamp x", "9" * 5000])
def test_a_value_that_is_not_of_its_form_is_said(value: str) -> None:
    result = run("-", stdin=f"a: {value}")
    assert (result.exit_code, "stdin: not YAML" in result.output) == (1, True)


_LEVELS: Final = [f"x{n}: &x{n} %s" for n in range(1, 10)]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(["x0: &x0 []", *(line % f"[{', '.join([f'*x{n}'] * 10)}]" for n, line in enumerate(_LEVELS))]),
        "\n".join(
            ["x0: &x0 {a: 1}", *(line % f"{{<<: [{', '.join([f'*x{n}'] * 10)}]}}" for n, line in enumerate(_LEVELS))]
        ),
        "&a {kind: List, items: [*a]}",
        "a: &a {<<: *a}",
        "[" * 3000 + "]" * 3000,
    ],
    ids=["lists", "merges", "a circle", "a merge with itself", "levels"],
)
def test_a_few_lines_take_no_end_of_time(text: str) -> None:
    result = run("-", stdin=text)
    assert (result.exit_code, "stdin: not YAML" in result.output) == (1, True)


def test_aliases_may_be_used() -> None:
    ids = f"serverIDs: &ids [{A}]"
    assert run("-", stdin=f"base: &base {{{ids}}}\nspec: {{<<: *base, again: *ids}}").exit_code == 0


def test_nothing_of_a_file_is_an_order_to_a_terminal() -> None:
    names = '"\\e[31m\\u202e\\u009b2J"'
    text = f"apiVersion: cce.nodepools.dev/v1alpha1\nkind: NodePoolMembership\nmetadata: {{name: {names}}}\n"
    for output in (
        run("-", stdin=text).output,
        run("-", "-o", "json", stdin=text).output,
        run("-", stdin=f"{text}spec: {{serverIDs: [{names}, {names}]}}").output,
    ):
        assert ("\\u001b[31m" in output, "\\u202e" in output) == (True, True)
        assert not set(output) & set("\x1b\u202e\x9b")


def test_lists_are_looked_into() -> None:
    items = [membership("a", A), membership("b", A)]
    assert run("-", stdin=json.dumps({"kind": "List", "apiVersion": "v1", "items": items})).exit_code == 1


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", ".")
    return tmp_path


def git(where: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(where), *identity, *arguments], check=True, capture_output=True)


def commit(where: Path) -> None:
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "x")


def since(where: Path) -> list[str]:
    rows = json.loads(run(str(where), "--since", "HEAD", "-o", "json").output)
    return [f"{row['level']} {row['text']}" for row in rows]


def test_an_edit_tells_what_it_would_wipe_and_forget(repository: Path) -> None:
    write(repository / "m.yaml", membership("m", A, B))
    commit(repository)
    write(repository / "m.yaml", membership("m", B, C))
    assert since(repository) == [
        f"note ns/m: 1 server would be added, WIPED if no nodes yet: {C}",
        f"note ns/m: they left the list: 1 server stays in the pool and is forgotten: {A}",
    ]
    write(repository / "m.yaml", membership("m", B, removalPolicy="Remove"))
    removed = "1 member would be REMOVED from the cluster and wiped"
    assert since(repository) == [f"warning ns/m: they left the list: {removed}: {A}"]


def test_a_membership_that_goes_tells_what_becomes_of_its_members(repository: Path) -> None:
    write(repository / "m.yaml", membership("m", A, deletionPolicy="Remove"))
    commit(repository)
    (repository / "m.yaml").unlink()
    assert since(repository) == [
        f"warning ns/m: the membership is gone: 1 member would be REMOVED from the cluster and wiped: {A}"
    ]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, f"note moved from ns/old to ns/new, of the same pool: adopted as they are: {A}"),
        (
            {"pool": CLUSTER},
            "warning moved from ns/old to ns/new, and the pools differ: they may be",
        ),
    ],
)
def test_an_id_that_moves_is_told_with_what_it_costs(repository: Path, fields: dict[str, str], says: str) -> None:
    write(repository / "m.yaml", membership("old", A, B))
    commit(repository)
    write(repository / "m.yaml", membership("old", B), membership("new", A, **fields))
    (remark,) = since(repository)
    assert remark.startswith(says)


def test_what_may_not_change_is_an_error(repository: Path) -> None:
    write(repository / "m.yaml", membership("m", A))
    commit(repository)
    write(repository / "m.yaml", membership("m", A, pool=CLUSTER))
    (remark,) = since(repository)
    assert remark.startswith("error ns/m: spec.nodePool: nodePool is immutable")


def test_a_revision_that_does_not_exist_is_said(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write(repository / "m.yaml", membership("m", A))
    commit(repository)
    for where, revision in ((repository, "nowhere"), (tmp_path_factory.mktemp("bare"), "HEAD")):
        result = run(str(where), "--since", revision)
        assert (result.exit_code, "Error: rev-parse" in result.output) == (1, True)
    assert "stdin has no earlier revision" in run("-", "--since", "HEAD", stdin="").output
