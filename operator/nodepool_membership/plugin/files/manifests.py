"""Memberships as YAML documents: in files, directories, on stdin, or as a git revision had them.

Not for: what is right or wrong with them (`lint`).
"""

import math
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import yaml

from nodepool_membership.api.names import GROUP, KIND

STDIN: Final = "-"
_MOST_BY_ALIASES: Final = 100_000
"""Values that aliases may stand for in a text, beyond those that are written: a few lines can name more than memory."""
_OF_VALUES: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What the loader raises for a value that is not of its tag's form, such as `!!int x`, or for too many levels."""
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})


class UnreadableError(Exception):
    """What was to be read cannot be; the text says what and why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One membership as it is written, and where: file and number of the document in it, from 1."""

    source: str
    number: int
    document: dict[str, object]

    @property
    def where(self) -> str:
        return self.source if self.number == 1 else f"{self.source} (document {self.number})"

    @property
    def key(self) -> tuple[str, str]:
        """Namespace (empty where none is written) and name."""
        metadata = table(self.document.get("metadata"))
        return _text(metadata.get("namespace")), _text(metadata.get("name"))

    @property
    def name(self) -> str:
        return "/".join(part for part in self.key if part) or "(without a name)"

    @property
    def spec(self) -> dict[str, object]:
        return table(self.document.get("spec"))

    @property
    def server_ids(self) -> list[str]:
        """As they are written, but in lower case."""
        listed = self.spec.get("serverIDs")
        ids = listed if isinstance(listed, list) else []
        return [server_id.lower() for server_id in ids if isinstance(server_id, str)]


def table(value: object) -> dict[str, object]:
    """A table of a document; an empty one if it is something else."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """Reads YAML as Kubernetes does, in one respect: a time is a text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _documents(text: str) -> Iterator[object]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if _unfolded(node, {}) > len(text) + _MOST_BY_ALIASES:
                raise yaml.YAMLError("aliases that stand for themselves, or for far more than is written")
            yield loader.construct_document(node)
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, with every alias in full; no end of them where it is within itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf
        parts = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


def parse(text: str, source: str) -> Iterator[Manifest]:
    """The memberships among the documents of a text; lists of kind List are looked into.

    Raises:
        UnreadableError: it is not YAML.
    """
    try:
        documents = list(_documents(text))
    except (yaml.YAMLError, *_OF_VALUES) as error:
        raise UnreadableError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    for number, document in enumerate(documents, 1):
        for found in _unpacked(document):
            if found.get("kind") == KIND and str(found.get("apiVersion", "")).startswith(f"{GROUP}/"):
                yield Manifest(source, number, found)


def _unpacked(document: object) -> Iterator[dict[str, object]]:
    if not isinstance(document, dict):
        return
    items = document.get("items")
    if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
        for item in items:
            yield from _unpacked(item)
    else:
        yield document


def read(sources: Sequence[str], stdin: Callable[[], str]) -> list[Manifest]:
    """The memberships in files, directories and on stdin (`-`).

    Raises:
        UnreadableError: a file is not there, or not YAML.
    """
    found: list[Manifest] = []
    for source in sources:
        if source == STDIN:
            found += parse(stdin(), "stdin")
            continue
        for path in _files(Path(source)):
            try:
                text = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UnreadableError(f"{path}: {error}") from None
            found += parse(text, str(path))
    return found


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    inside = (p for p in sorted(path.rglob("*")) if p.suffix in _SUFFIXES and p.is_file())
    return [p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)]


def at_revision(sources: Sequence[str], revision: str) -> list[Manifest]:
    """The memberships that a git revision had below the same paths; one that it did not have is empty.

    Raises:
        UnreadableError: git does not know the revision, or the paths are in no repository.
    """
    found: list[Manifest] = []
    for source in sources:
        if source == STDIN:
            raise UnreadableError("stdin has no earlier revision: give --since with files or directories")
        path = Path(source)
        where = path if path.is_dir() else path.parent
        _git(where, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        target = "." if path.is_dir() else path.name
        names = _git(where, "ls-tree", "-r", "-z", "--name-only", revision, "--", target)
        for name in filter(None, names.split("\0")):
            if Path(name).suffix in _SUFFIXES:
                found += parse(_git(where, "show", f"{revision}:./{name}"), f"{name} at {revision}")
    return found


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - no shell
    except OSError as error:
        raise UnreadableError(f"git cannot be run: {error}") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip() or "git knows no such revision"
        raise UnreadableError(f"{' '.join(arguments)} in {directory}: {said}") from None
