"""Every command that a document names can be typed: verbs, options, kinds, names, fields, annotations, columns.

Not for: whether it helps, or for the operator's own options and plain field names (`test_docs`). Commands are those in
`console` blocks and code spans; a `$` variable, a WORD in capitals and `<...>` stand for what a user fills in.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml

from nodepool_membership.api import names
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.plugin.cli import npmem

ROOT: Final = Path(__file__).parent.parent.parent.parent
DOCS: Final = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE: Final = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`]+)`")
_OURS: Final = re.compile(rf"\b{re.escape(names.GROUP)}/[\w.-]+")
_SUBSTITUTED: Final = re.compile(r"\$\(([^()]*)\)")
_TEMPLATE: Final = re.compile(r"\{([^{}]*)\}")
_FILTER: Final = re.compile(r'\[(?:\*|\?\(@\.(\w+)=="([^"]*)"\))\]')

_COMMON: Final = {
    "-n",
    "--namespace",
    "-A",
    "-o",
    "--output",
    "-l",
    "--help",
    "--as",
    "--kubeconfig",
    "-f",
    "--filename",
}
VERBS: Final[dict[str, set[str]]] = {
    "annotate": {"--overwrite", "--all"},
    "apply": {"-k", "--server-side", "--dry-run", "--force-conflicts", "--prune", "--field-manager"},
    "auth": set(),
    "cordon": set(),
    "create": {"--type", "--from-file", "--from-literal", "--dry-run", "--for", "--duration", "--audience"},
    "debug": {"-it", "--image"},
    "delete": {"-k", "--all", "--all-namespaces", "--wait", "--ignore-not-found", "--cascade"},
    "describe": set(),
    "diff": {"-k", "--server-side"},
    "edit": {"--subresource"},
    "events": {"--for"},
    "explain": set(),
    "get": {"-w", "--watch", "--show-managed-fields", "--raw", "--sort-by"},
    "kustomize": set(),
    "label": {"--overwrite"},
    "logs": {"--previous", "--since", "-c", "--tail", "--follow", "--selector", "--prefix"},
    "patch": {"--type", "-p", "--subresource"},
    "port-forward": set(),
    "rollout": {"--timeout"},
    "run": {"--rm", "-it", "--restart", "--image"},
    "scale": {"--replicas"},
    "set": set(),
    "wait": {"--for", "--timeout"},
}
"""Of kubectl: the verbs that documents use, with the options of each beside the common ones."""
SECOND: Final = {"auth": {"can-i"}, "rollout": {"restart", "status", "undo"}, "set": {"image", "env"}}
PLUGIN: Final = "npmem"
"""`kubectl npmem`: its verbs and options are those of the program itself."""
KINDS: Final = {
    *("crd", "customresourcedefinition", "deployment", "deploy", "event", "events", "lease", "namespace", "ns", "node"),
    *("nodes", "pod", "pods", "secret", "secrets", "configmap", "serviceaccount", "role", "rolebinding", "token"),
    *("clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "validatingadmissionpolicybinding"),
    *("networkpolicy", "servicemonitor", "prometheusrule", "poddisruptionbudget"),
}
_ANNOTATIONS: Final = {
    *names.RECONCILE_ANNOTATIONS,
    *names.RESET_ANNOTATIONS,
    names.CREDENTIALS_MARK,
    names.FINALIZER,
    names.API_VERSION,
    *(value for name, value in vars(names).items() if name.endswith("_ANNOTATION") and isinstance(value, str)),
}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def _definition() -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((ROOT / "crds" / "nodepoolmemberships.yaml").read_text())
    return found


def _version() -> dict[str, object]:
    return _definition()["spec"]["versions"][0]  # type: ignore[index, no-any-return]


def _schema() -> dict[str, object]:
    return _version()["schema"]["openAPIV3Schema"]  # type: ignore[index, no-any-return]


@cache
def _own_kinds() -> set[str]:
    said = _definition()["spec"]["names"]  # type: ignore[index]
    return {said["plural"], said["singular"], *said["shortNames"], f"{said['plural']}.{names.GROUP}"}


@cache
def _shipped() -> set[str]:
    """Names of the objects in deploy/, where they are plain YAML."""
    found = set()
    for path in (path for path in (ROOT / "deploy").rglob("*.yaml") if "templates" not in path.parts):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and isinstance(document.get("metadata"), dict):
                found.add(str(document["metadata"].get("name")))
    return found


def _lines(text: str) -> Iterator[str]:
    """What may be typed: lines of `console` blocks that begin with `$`, and code spans."""
    for language, block in _FENCE.findall(text):
        if language in {"console", "bash", "sh", "shell"}:
            joined = re.sub(r"\\\n\s*", " ", block)
            for line in joined.splitlines():
                stripped = line.strip()
                if language != "console" or stripped.startswith("$ "):
                    yield stripped.removeprefix("$ ")
    for span in _SPAN.findall(_FENCE.sub("", text)):
        yield " ".join(span.split())


def _commands(text: str) -> Iterator[list[str]]:
    """The words of every kubectl command, those in `$(...)` too."""
    for line in _lines(text):
        outer = line
        while inner := _SUBSTITUTED.search(outer):
            yield from _kubectl(inner[1])
            outer = outer.replace(inner[0], "SUBSTITUTED")
        yield from _kubectl(outer)


def _kubectl(line: str) -> Iterator[list[str]]:
    try:
        words = shlex.split(line, posix=True)
    except ValueError:
        # A span may be a piece of a command.
        return
    for command in _split(words, {"|", "&&", "||", ";", ">", "&"}):
        while command and re.fullmatch(r"\w+=.*", command[0]):
            command = command[1:]
        if command[:1] == ["kubectl"] and len(command) > 1:
            yield command[1:]


def _split(words: list[str], separators: set[str]) -> Iterator[list[str]]:
    current: list[str] = []
    for word in words:
        ends = word.endswith(";") and word != ";"
        if word in separators:
            yield current
            current = []
        else:
            current.append(word.removesuffix(";") if ends else word)
            if ends:
                yield current
                current = []
    yield current


_TAKES_VALUE: Final = {
    "-n",
    "--namespace",
    "-o",
    "--output",
    "-l",
    "-k",
    "-f",
    "--filename",
    "-p",
    "--as",
    "-c",
    "--raw",
}


def _parsed(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """Plain words and options of a command."""
    plain: list[str] = []
    options: dict[str, str] = {}
    words = iter(command)
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            name, _, value = word.partition("=")
            options[name] = next(words, "") if not value and name in _TAKES_VALUE else value
        else:
            plain.append(word)
    return plain, options


def _is_open(word: str) -> bool:
    """Whether a word is for the user to fill in."""
    return bool(re.search(r"\$|SUBSTITUTED|<|\.\.\.|…", word)) or re.fullmatch(r"[A-Z][A-Z0-9-]*", word) is not None


def _fields_of(path: str) -> list[str]:
    return [part for part in re.split(r"[.\[\]*]+", path) if part and not part.isdigit()]


def _at(schema: dict[str, object], path: list[str]) -> dict[str, object] | None:
    """The schema of a field, through lists; None if there is none."""
    while isinstance(items := schema.get("items"), dict):
        schema = items
    if not path:
        return schema
    properties = schema.get("properties")
    child = properties.get(path[0]) if isinstance(properties, dict) else None
    return _at(child, path[1:]) if isinstance(child, dict) else None


def _wrong_path(template: str) -> list[str]:
    """Fields that a jsonpath names and the definition does not have, and failure reasons that do not exist."""
    wrong: list[str] = []
    base: list[str] = []
    for expression in _TEMPLATE.findall(template):
        said = expression.strip()
        if said.startswith("range "):
            said, is_range = said.removeprefix("range "), True
        else:
            is_range = False
        if said in {"end", ""} or said.startswith(('"', ".metadata")):
            base = [] if said == "end" else base
            continue
        for field, value in _FILTER.findall(said):
            before = _fields_of(_FILTER.sub("", said.partition("[?")[0]))
            if field and _at(_schema(), [*base, *before, field]) is None:
                wrong.append(f"{said}: {field}")
            if field == "reason" and before[-1:] == ["failures"] and value not in {*FailureReason}:
                wrong.append(f"{said}: {value}")
        path = [*base, *_fields_of(_FILTER.sub("", said))]
        if _at(_schema(), path) is None:
            wrong.append(f"{said}: {'.'.join(path)}")
        base = path if is_range else base
    return wrong


def _wrong_patch(patch: object, schema: dict[str, object], where: str = "") -> list[str]:
    """Fields of a merge patch that the definition does not have, or of another type."""
    if not isinstance(patch, dict):
        types = {"boolean": bool, "string": str, "integer": int, "array": list}
        wanted = types.get(str(schema.get("type")))
        return [] if patch is None or wanted is None or isinstance(patch, wanted) else [f"{where}: {patch!r}"]
    wrong = []
    for name, value in patch.items():
        below = f"{where}.{name}"
        child = _at(schema, [name])
        if below == ".metadata":
            wrong += [] if set(value) <= {"finalizers", "annotations", "labels"} else [below]
        elif child is None:
            wrong.append(below)
        else:
            wrong += _wrong_patch(value, child, below)
    return wrong


def _kind_and_name(plain: list[str]) -> tuple[str, str | None]:
    kind, _, name = plain[0].partition("/")
    return kind.lower(), name or (plain[1] if len(plain) > 1 else None)


def _faults_of_plugin(plain: list[str], options: Mapping[str, str]) -> Iterator[str]:
    if not plain or _is_open(plain[0]):
        return
    verb = npmem.commands.get(plain[0])
    if verb is None:
        yield f"verb npmem {plain[0]}"
        return
    known = {name for parameter in verb.params for name in parameter.opts} | {"--help"}
    yield from (f"option {name} of npmem {plain[0]}" for name in options if name not in known)


def _faults(command: list[str]) -> Iterator[str]:
    """What cannot be typed of a command."""
    plain, options = _parsed(command)
    if plain[:1] == [PLUGIN]:
        yield from _faults_of_plugin(plain[1:], options)
    elif plain and not _is_open(plain[0]):
        yield from _faults_of_kubectl(plain, options)


def _faults_of_kubectl(plain: list[str], options: Mapping[str, str]) -> Iterator[str]:  # noqa: C901 - one question a line
    verb, *rest = plain
    if verb not in VERBS:
        yield f"verb {verb}"
        return
    yield from (f"option {name} of {verb}" for name in options if name not in VERBS[verb] | _COMMON)
    if verb in SECOND:
        yield from (f"{verb} {word}" for word in rest[:1] if word not in SECOND[verb])
        rest = rest[1:]
    namespace = options.get("-n", options.get("--namespace"))
    if namespace and not _is_open(namespace) and namespace not in _shipped() | {"kube-system", "cce-system", "default"}:
        yield f"namespace {namespace}"
    if rest and verb in {"get", "describe", "annotate", "patch", "label", "edit", "delete", "scale", "wait", "logs"}:
        kind, name = _kind_and_name(rest)
        kinds = _own_kinds() | KINDS
        is_pod = verb == "logs" and "/" not in rest[0]
        if not is_pod and not set(kind.split(",")) <= kinds and not _is_open(rest[0]):
            yield f"kind {kind}"
        shipped = {"deployment", "deploy", "lease"} & {kind}
        if shipped and name and not _is_open(name) and name not in _shipped() | {names.COMPONENT}:
            yield f"name {name}"
    template = options.get("-o", options.get("--output", ""))
    if template.startswith("jsonpath=") and rest and rest[0].partition("/")[0] in _own_kinds():
        yield from _wrong_path(template.removeprefix("jsonpath="))
    if verb == "patch" and rest and rest[0].partition("/")[0] in _own_kinds():
        yield from _wrong_patch(json.loads(options["-p"]), _schema())
    if verb == "wait" and "--for" in options and not re.fullmatch(r"(condition|jsonpath)=.+|delete", options["--for"]):
        yield f"--for {options['--for']}"
    if verb in {"annotate", "label"}:
        marked = rest[1:] if "--all" in options else rest[2:]
        marks = (word.removesuffix("-").partition("=")[0] for word in marked if not _is_open(word.partition("=")[0]))
        known = {
            *_ANNOTATIONS,
            "kubectl.kubernetes.io/last-applied-configuration",
            "pod-security.kubernetes.io/enforce",
        }
        yield from (f"{verb} {mark}" for mark in marks if mark not in known)


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_every_command_can_be_typed(path: Path) -> None:
    assert [f"kubectl {shlex.join(c)}: {fault}" for c in _commands(path.read_text()) for fault in _faults(c)] == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_annotations_and_labels_that_are_named_exist(path: Path) -> None:
    found = {name.rstrip(".-") for name in _OURS.findall(path.read_text())}
    assert found - _ANNOTATIONS == set()


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_the_columns_that_are_shown_are_the_definitions(path: Path) -> None:
    columns = {str(column["name"]).upper() for column in _version()["additionalPrinterColumns"]}  # type: ignore[attr-defined]
    known = {"NAMESPACE", "NAME", *columns}
    shown = [
        line
        for language, block in _FENCE.findall(path.read_text())
        for line in block.splitlines()
        if language == "console" and re.match(r"(NAMESPACE +)?NAME +READY +REASON", line)
    ]
    assert [line for line in shown if not {*re.split(r"\s{2,}", line.strip())} <= known] == []


def test_every_page_of_a_reason_names_a_command() -> None:
    pages = [page for page in (ROOT / "docs" / "reasons").glob("*.md") if page.stem != "README"]
    assert [page.name for page in pages if not list(_commands(page.read_text()))] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("`kubectl -n $NS annotate npmem $NAME cce.nodepools.dev/reset-now=1`", "annotate cce.nodepools.dev/reset-now"),
        ("`kubectl annotate namespace --all cce.nodepools.dev/stopped=1`", "annotate cce.nodepools.dev/stopped"),
        ("`kubectl -n $NS anotate npmem $NAME a=b`", "verb anotate"),
        ("`kubectl -n $NS get npmem $NAME --watch-forever`", "option --watch-forever of get"),
        ("`kubectl -n $NS get nodepool $NAME`", "kind nodepool"),
        ("`kubectl -n operator-system get pods`", "namespace operator-system"),
        ("`kubectl -n nodepool-membership logs deployment/operator`", "name operator"),
        ("`kubectl get npmem $NAME -o jsonpath='{.status.jobList}'`", ".status.jobList: status.jobList"),
        (
            "`kubectl get npmem $NAME -o jsonpath='{range .status.jobs[*]}{.job}{end}'`",
            ".job: status.jobs.job",
        ),
        (
            "`kubectl get npmem $NAME -o jsonpath='{.status.failures[?(@.reason==\"Gone\")].serverIDs}'`",
            '.status.failures[?(@.reason=="Gone")].serverIDs: Gone',
        ),
        ('`kubectl patch npmem $NAME --type=merge -p \'{"spec": {"paused": true}}\'`', ".spec.paused"),
        ('`kubectl patch npmem $NAME --type=merge -p \'{"spec": {"suspend": 1}}\'`', ".spec.suspend: 1"),
        ("`kubectl rollout reload deployment/x`", "rollout reload"),
        ("`kubectl npmem explane $NAME`", "verb npmem explane"),
        ("`kubectl npmem reset $NAME -n $NS --just=Refused`", "option --just of npmem reset"),
        ("```console\n$ A=1; kubectl get npmems \\\n    -o yaml\n```\n", "kind npmems"),
        ("```console\n$ X=$(kubectl get npmem -o jsonpath='{.spec.secret}')\n```\n", ".spec.secret: spec.secret"),
    ],
)
def test_what_cannot_be_typed_is_found(text: str, fault: str) -> None:
    assert [found for command in _commands(text) for found in _faults(command)] == [fault]
