"""The frozen releases, and how this one is frozen."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from gitops.fixtures import states
from nodepool_membership import __version__

HERE: Final = Path(__file__).parent
CRD: Final = HERE.parent.parent / "crds" / "nodepoolmemberships.yaml"

Schema = dict[str, Any]


@dataclass(frozen=True)
class Release:
    """One folder of a release."""

    folder: Path

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def crd(self) -> Path:
        return self.folder / "crd.yaml"

    def objects(self) -> list[Schema]:
        """Memberships as they were stored, each with a name of its own."""
        found: list[Schema] = json.loads((self.folder / "objects.json").read_text())
        return found


def releases() -> list[Release]:
    """Oldest first."""
    folders = [path for path in HERE.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return [Release(path) for path in sorted(folders, key=lambda path: [int(part) for part in path.name.split(".")])]


def freeze() -> Path:
    """Write the folder of this version anew; returns it."""
    folder = HERE / __version__
    folder.mkdir(exist_ok=True)
    shutil.copyfile(CRD, folder / "crd.yaml")
    made = []
    for number, state in enumerate(states()):
        metadata = {k: v for k, v in state["metadata"].items() if k not in {"deletionTimestamp", "generation"}}
        made.append({**state, "metadata": {**metadata, "name": f"m{number}"}})
    (folder / "objects.json").write_text("[\n" + ",\n".join(json.dumps(o, sort_keys=True) for o in made) + "\n]\n")
    return folder


def schema(crd: Path) -> Schema:
    """The one schema of a definition."""
    (version,) = yaml.safe_load(crd.read_text())["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


_UPPER: Final = ("maxLength", "maxItems", "maximum")
_LOWER: Final = ("minLength", "minItems", "minimum")


def tightened(old: Schema, new: Schema, path: str = "") -> Iterator[str]:  # noqa: C901 - one question a line
    """Each way in which the new schema refuses what the old one took."""
    here = path.lstrip(".") or "the object"
    if old.get("type") != new.get("type"):
        yield f"{here}: was {old.get('type')}, is {new.get('type')}"
    for word in (*_UPPER, *_LOWER):
        if word in new and (word not in old or (new[word] < old[word] if word in _UPPER else new[word] > old[word])):
            yield f"{here}: {word} was {old.get(word, 'absent')}, is {new[word]}"
    if "enum" in new and not set(old.get("enum", ["anything"])) <= set(new["enum"]):
        yield f"{here}: values were {old.get('enum', 'any')}, are {new['enum']}"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{here}: another pattern"
    required = set(new.get("required", ())) - set(old.get("required", ()))
    yield from (f"{here}: {name} became required" for name in sorted(required))
    known = {rule["rule"] for rule in old.get("x-kubernetes-validations", ())}
    for rule in new.get("x-kubernetes-validations", ()):
        if rule["rule"] not in known:
            yield f"{here}: a new rule: {rule['message']}"
    for name, child in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            yield from tightened(child, new["properties"][name], f"{path}.{name}")
        else:
            yield f"{path.lstrip('.')}.{name}: is gone"
    if "items" in old and "items" in new:
        yield from tightened(old["items"], new["items"], f"{path}[]")
