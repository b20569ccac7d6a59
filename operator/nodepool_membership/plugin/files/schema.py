"""The schema that the API server would hold a membership against: types, bounds, unknown fields and the CEL rules.

Not for: what no schema sees (`lint`). It is the CustomResourceDefinition itself, which the wheel carries.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

import cel
import jsonschema
import yaml

from nodepool_membership.plugin.files.manifests import table

_RULES: Final = "x-kubernetes-validations"
_MAX_VALUE: Final = 80


def _definition() -> str:
    packed = resources.files("nodepool_membership") / "crd.yaml"
    if packed.is_file():
        return packed.read_text("utf-8")
    return (Path(__file__).parents[4] / "crds" / "nodepoolmemberships.yaml").read_text("utf-8")


@cache
def schema() -> dict[str, object]:
    """The schema of a whole object."""
    definition = yaml.safe_load(_definition())
    found: dict[str, object] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def complaints(document: Mapping[str, object], before: Mapping[str, object] | None = None) -> Iterator[str]:
    """Why the API server would refuse the object, each with the field and the remedy; nothing if it would not.

    `before` is the object as it was: then the rules for changes count, too.
    """
    wrong = list(_checked(document))
    yield from wrong
    if wrong:
        # A rule over a field of the wrong type fails for reasons that nobody would understand.
        return
    properties = table(schema()["properties"])
    for part in ("spec",):
        rules = table(properties[part])
        old = None if before is None else before.get(part)
        yield from _broken(part, rules, _defaulted(rules, document.get(part)), _defaulted(rules, old))


def _checked(document: Mapping[str, object]) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(_closed(schema()))
    for error in sorted(validator.iter_errors(document), key=lambda e: [str(part) for part in e.absolute_path]):
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        text = error.message if len(error.message) <= _MAX_VALUE else f"{error.message[:_MAX_VALUE]}…"
        yield f"{where.lstrip('.') or 'the object'}: {text}"


def _closed(node: dict[str, object]) -> dict[str, object]:
    """The schema with unknown fields refused, as `kubectl apply` does with strict validation."""
    closed = {name: value for name, value in node.items() if name not in {"format", "default"}}
    properties = node.get("properties")
    if isinstance(properties, dict):
        closed["properties"] = {name: _closed(child) for name, child in properties.items()}
        closed["additionalProperties"] = node.get("additionalProperties", False)
    if isinstance(items := node.get("items"), dict):
        closed["items"] = _closed(items)
    return closed


def _defaulted(rules: Mapping[str, object], value: object) -> object:
    if not isinstance(value, dict):
        return value
    result = dict(value)
    for name, child in table(rules.get("properties")).items():
        known = table(child)
        if name not in result and "default" in known:
            result[name] = known["default"]
        if name in result:
            result[name] = _defaulted(known, result[name])
    return result


def _broken(where: str, rules: Mapping[str, object], value: object, old: object) -> Iterator[str]:
    validations = rules.get(_RULES)
    for rule in validations if isinstance(validations, list) else ():
        changes = "oldSelf" in rule["rule"]
        if changes and old is None:
            continue
        if cel.evaluate(rule["rule"], {"self": value, **({"oldSelf": old} if changes else {})}) is not True:
            yield f"{where}: {rule['message']}"
    for name, child in table(rules.get("properties")).items():
        inner = table(value).get(name)
        if inner is not None:
            yield from _broken(f"{where}.{name}", table(child), inner, table(old).get(name))
