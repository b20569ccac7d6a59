"""Which namespaces may name which projects, clusters and pools: the file of `--grants`; without one, any may name all.

Not for: what their credentials may do there, which the cloud says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nodepool_membership.listfile import read_list

if TYPE_CHECKING:
    # The command line reads this module, and starts without what the types of the API need.
    from nodepool_membership.api.spec import NodePoolRef

_REMEDY: Final = "write a YAML list of mappings: namespace, projectID and, if only these, clusterIDs and nodePoolIDs"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ONE: Final = {
    "namespace": re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"),
    "projectID": re.compile(r"[0-9a-f]{32}"),
}
_MANY: Final = ("clusterIDs", "nodePoolIDs")


class GrantsFileError(ValueError):
    """The file cannot be used; the text names file, entry, field and remedy."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one namespace may name; empty: every cluster of the project, every pool of these clusters."""

    namespace: str
    project_id: str
    cluster_ids: frozenset[str]
    node_pool_ids: frozenset[str]

    def covers(self, namespace: str, pool: "NodePoolRef") -> bool:
        return (
            (self.namespace, self.project_id) == (namespace, pool.project_id)
            and (not self.cluster_ids or pool.cluster_id in self.cluster_ids)
            and (not self.node_pool_ids or pool.node_pool_id in self.node_pool_ids)
        )


@dataclass(frozen=True, slots=True)
class Grants:
    """All grants of a file; None: there is no file."""

    listed: tuple[Grant, ...] | None = None

    def why_not(self, namespace: str, pool: "NodePoolRef") -> str | None:
        """Why memberships of this namespace may not name the pool; None: they may."""
        if self.listed is None or any(grant.covers(namespace, pool) for grant in self.listed):
            return None
        return (
            f"namespace {namespace!r} may not name node pool {pool.node_pool_id} of cluster {pool.cluster_id} in"
            f" project {pool.project_id}: correct spec.nodePool in a new membership, or have the operator's"
            " administrator add the pool to the file of --grants"
        )


ANY: Final = Grants()
"""Without a file."""


def read_grants_file(path: Path) -> Grants:
    """Read a file of `--grants`: a YAML list. An empty list grants nothing to anybody.

    Raises:
        GrantsFileError: it cannot be used.
    """
    document = read_list(path, _REMEDY, GrantsFileError)
    return Grants(tuple(_entry(f"{str(path)!r}, entry {number + 1}", entry) for number, entry in enumerate(document)))


def _entry(where: str, entry: object) -> Grant:
    if not isinstance(entry, dict):
        raise GrantsFileError(f"{where} is not a mapping: {_REMEDY}")
    for name in entry:
        if name not in (*_ONE, *_MANY):
            raise GrantsFileError(f"{where}: {str(name)!a} is not known: {_REMEDY}")
    one = {name: _matching(where, name, pattern, entry.get(name)) for name, pattern in _ONE.items()}
    clusters, pools = (_ids(where, name, entry) for name in _MANY)
    return Grant(one["namespace"], one["projectID"], clusters, pools)


def _ids(where: str, name: str, entry: Mapping[object, object]) -> frozenset[str]:
    """A list that is there and empty would grant all, which nobody means who writes it."""
    if name not in entry:
        return frozenset()
    found = entry[name]
    if not isinstance(found, list) or not found:
        raise GrantsFileError(f"{where}: {name} is not a list of ids; leave it out for all: {_REMEDY}")
    return frozenset(_matching(where, name, _UUID, value) for value in found)


def _matching(where: str, name: str, pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise GrantsFileError(
            f"{where}: {name} {value!a} is none, write it in quotes as the console shows it: {_REMEDY}"
        )
    return value
